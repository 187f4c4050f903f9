//! `tramite.audit.v1.Audit`: fixed in the contract, not served yet. Each method says so with a reason, to auditors; to anybody else it
//! says what it would say once it is served.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use tonic::{Request, Response, Status};
use tramite_proto::{
    pb::audit::v1::{
        Checkpoint, Entry, ExportEvidenceRequest, ExportEvidenceResponse, GetCheckpointRequest,
        GetConsistencyProofRequest, GetEntryRequest, GetInclusionProofRequest, Proof, ReportSubjectRequest,
        SearchRequest, SearchResponse, audit_server::Audit,
    },
    reason::{Reason, Refused},
};

use crate::{hub::Hub, identify};

/// The service.
#[derive(Debug, Clone)]
pub struct AuditService {
    hub: Arc<Hub>,
}

impl AuditService {
    /// On that hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    fn not_yet<T, R>(&self, request: &Request<T>) -> Result<Response<R>, Status> {
        let peer = identify::peer(request.extensions())?;
        let refused = match identify::auditor(&peer) {
            Ok(()) => Refused::because(Reason::AuditNotYetServed),
            Err(refused) => refused,
        };
        self.hub.refuse("audit", peer.name().as_str(), "", &refused);
        Err(refused.to_status())
    }
}

#[tonic::async_trait]
impl Audit for AuditService {
    type ExportEvidenceStream = Pin<Box<dyn Stream<Item = Result<ExportEvidenceResponse, Status>> + Send>>;

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        self.not_yet(&request)
    }

    async fn get_entry(&self, request: Request<GetEntryRequest>) -> Result<Response<Entry>, Status> {
        self.not_yet(&request)
    }

    async fn get_checkpoint(&self, request: Request<GetCheckpointRequest>) -> Result<Response<Checkpoint>, Status> {
        self.not_yet(&request)
    }

    async fn get_inclusion_proof(&self, request: Request<GetInclusionProofRequest>) -> Result<Response<Proof>, Status> {
        self.not_yet(&request)
    }

    async fn get_consistency_proof(
        &self,
        request: Request<GetConsistencyProofRequest>,
    ) -> Result<Response<Proof>, Status> {
        self.not_yet(&request)
    }

    async fn export_evidence(
        &self,
        request: Request<ExportEvidenceRequest>,
    ) -> Result<Response<Self::ExportEvidenceStream>, Status> {
        self.not_yet(&request)
    }

    async fn report_subject(&self, request: Request<ReportSubjectRequest>) -> Result<Response<SearchResponse>, Status> {
        self.not_yet(&request)
    }
}
