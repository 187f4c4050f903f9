//! `tramite documents request` asks a holder for documents; `tramite documents kinds` lists what can be asked for.

use serde_json::json;
use tramite_adapters::{json::sent_to_json, request::Request};
use tramite_proto::{
    pb::{
        backoffice::v1 as bo,
        body::v1::{AnswerMode, DocumentRequest, DocumentWanted, Person, PersonIdentifier, person_identifier},
    },
    vocabulary::Document,
};

use super::{cases, send};
use crate::{
    cli::{Documents, DocumentsCommand, ModeWord, RequestDocuments},
    connect,
    failure::{Exit, Failure},
    output::{Output, Tone},
};

/// Does what is asked.
pub(crate) async fn run(asked: Documents, output: &Output) -> Result<Exit, Failure> {
    match asked.command {
        DocumentsCommand::Request(asked) => request(*asked, output).await,
        DocumentsCommand::Kinds => {
            kinds(*output);
            Ok(Exit::Ok)
        }
    }
}

/// The codes and what they mean.
fn kinds(output: Output) {
    let list = Document::all().map(|document| json!({"code": document.as_str(), "label": document.label()}));
    output.answer(&json!({ "documents": list.collect::<Vec<_>>() }), || {
        let mut table = output.table(&["code", "document"]);
        for document in Document::all() {
            table.add_row([output.cell(document.as_str(), Tone::Plain), output.cell(document.label(), Tone::Plain)]);
        }
        table.to_string()
    });
}

async fn request(asked: RequestDocuments, output: &Output) -> Result<Exit, Failure> {
    for code in &asked.documents {
        if code.parse::<Document>().is_err() {
            let sentence = format!("{code} is not a document code");
            return Err(Failure::usage(sentence, "`tramite documents kinds` lists the codes."));
        }
    }
    let mut adapter = connect::adapter(&asked.address).await?;
    let for_case = match &asked.for_case {
        Some(part) => cases::whole_id(&mut adapter, part).await?,
        None => String::new(),
    };
    let mode = match asked.mode {
        ModeWord::Verify => AnswerMode::Verify,
        ModeWord::Value => AnswerMode::Value,
        ModeWord::Copy => AnswerMode::Copy,
    };
    let wanted = asked.documents.iter().map(|document| DocumentWanted {
        document: document.clone(),
        mode: mode.into(),
        statement: asked.statement.clone().unwrap_or_default(),
        as_of: None,
    });
    let code = person_identifier::Kind::CodiceFiscale(asked.codice_fiscale.to_uppercase());
    let identifier = PersonIdentifier { kind: Some(code), ..PersonIdentifier::default() };
    let mut request = bo::RequestDocumentsRequest {
        sending: None,
        to: asked.to,
        request: Some(DocumentRequest {
            person: Some(Person { identifiers: vec![identifier], ..Person::default() }),
            documents: wanted.collect(),
            for_case,
            benefit: asked.benefit.unwrap_or_default(),
            ..DocumentRequest::default()
        }),
        conversation_id: String::new(),
    };
    let digest = Request::DocumentRequest(request.clone()).digest();
    request.sending = Some(bo::Sending {
        request_id: asked.request_id.unwrap_or_else(|| send::request_id("ask", &digest)),
        purpose: asked.purpose,
        legal_basis: asked.legal_basis,
        ..bo::Sending::default()
    });
    let sent = send::submit(&mut adapter, Request::DocumentRequest(request)).await?;
    output.answer(&sent_to_json(&sent), || send::said(&sent));
    Ok(Exit::Ok)
}
