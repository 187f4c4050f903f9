//! Generated from `proto/tramite/*/v1/*.proto`; the documentation is there.
#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    clippy::too_many_lines,
    clippy::doc_markdown,
    unused_qualifications,
    reason = "generated code"
)]
/// The descriptor set, for reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("tramite_descriptor");
pub mod statement {
    pub mod v1 {
        tonic::include_proto!("tramite.statement.v1");
    }
}
pub mod exchange {
    pub mod v1 {
        tonic::include_proto!("tramite.exchange.v1");
    }
}
pub mod directory {
    pub mod v1 {
        tonic::include_proto!("tramite.directory.v1");
    }
}
pub mod operations {
    pub mod v1 {
        tonic::include_proto!("tramite.operations.v1");
    }
}
pub mod audit {
    pub mod v1 {
        tonic::include_proto!("tramite.audit.v1");
    }
}
pub mod body {
    pub mod v1 {
        tonic::include_proto!("tramite.body.v1");
    }
}
pub mod backoffice {
    pub mod v1 {
        tonic::include_proto!("tramite.backoffice.v1");
    }
}
pub mod journal {
    pub mod v1 {
        tonic::include_proto!("tramite.journal.v1");
    }
}
