//! Who is who: authority, certificates, revocation, TLS set-up and reload.
