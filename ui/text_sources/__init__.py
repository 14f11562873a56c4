"""Where calibration and evaluation text comes from: samples, pastes, uploads, hub datasets."""
