"""The paper's backbones (section 4.1), in the form that its figures were computed for."""
