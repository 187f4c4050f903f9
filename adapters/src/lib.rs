//! The institutions: the adapter runtime and one folder for each institution.
