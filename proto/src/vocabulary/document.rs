//! Documents and facts that institutions ask each other for.
//!
//! Knows: who holds each, and ANPR's services for it. Never knows: a document's content.
//! Between administrations none of these is a certificate (DPR 445/2000 art. 40 and 43): it is a request for data to their holder.
use crate::codes::codes;

codes! {
    /// A document or fact about a person.
    pub enum Document("a document code") {
        Isee = "ISEE", "Attestazione ISEE";
        Residenza = "RESIDENZA", "Residenza";
        StoricoResidenza = "STORICO_RESIDENZA", "Storico della residenza";
        StatoFamiglia = "STATO_FAMIGLIA", "Stato di famiglia";
        Cittadinanza = "CITTADINANZA", "Cittadinanza";
        EsistenzaVita = "ESISTENZA_VITA", "Esistenza in vita";
        EstrattoContributivo = "ESTRATTO_CONTRIBUTIVO", "Estratto contributivo";
        Did = "DID", "Dichiarazione di immediata disponibilità al lavoro";
        PattoServizio = "PATTO_SERVIZIO", "Patto di servizio";
        VerbaleInvalidita = "VERBALE_INVALIDITA", "Verbale di invalidità civile";
        PermessoSoggiorno = "PERMESSO_SOGGIORNO", "Permesso di soggiorno";
        CfTs = "CF_TS", "Codice fiscale, tessera sanitaria";
        AttestazioneSvantaggio = "ATTESTAZIONE_SVANTAGGIO", "Attestazione della condizione di svantaggio";
        Identita = "IDENTITA", "Documento di identità";
        DelegaPersona = "DELEGA_PERSONA", "Consenso o delega firmata dalla persona";
    }
}

/// Where a document comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentFacts {
    /// Who holds it.
    pub holder: &'static str,
    /// ANPR's e-service that returns the datum (*accertamento*), where there is one.
    pub anpr_value: Option<&'static str>,
    /// ANPR's e-service that answers yes or no (*verifica*): to be preferred, where there is one.
    pub anpr_verify: Option<&'static str>,
}

const fn held_by(holder: &'static str) -> DocumentFacts {
    DocumentFacts { holder, anpr_value: None, anpr_verify: None }
}

const fn anpr(value: &'static str, verify: &'static str) -> DocumentFacts {
    DocumentFacts { holder: "ANPR, Comune", anpr_value: Some(value), anpr_verify: Some(verify) }
}

impl Document {
    /// Holder and services.
    #[must_use]
    pub const fn facts(self) -> DocumentFacts {
        match self {
            Self::Isee | Self::EstrattoContributivo | Self::VerbaleInvalidita => held_by("INPS"),
            Self::Residenza => anpr("C020", "C008"),
            Self::StatoFamiglia => anpr("C021", "C009"),
            Self::Cittadinanza => anpr("C018", "C006"),
            Self::EsistenzaVita => anpr("C019", "C007"),
            Self::StoricoResidenza => held_by("ANPR, Comune"),
            Self::Did | Self::PattoServizio => held_by("Centro per l'impiego, Ministero del Lavoro"),
            Self::PermessoSoggiorno => held_by("Questura"),
            Self::CfTs => held_by("Agenzia delle Entrate, ASL"),
            Self::AttestazioneSvantaggio => held_by("Comune, ASP"),
            Self::Identita | Self::DelegaPersona => held_by("the person"),
        }
    }
}
