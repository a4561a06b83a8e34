//! The server's side of SCRAM-SHA-256 (RFC 5802, 7677), without channel binding.
//!
//! No sockets and no clock: messages go in and come out. Passwords are taken as they are (no SASLprep beyond what
//! the client does), which is the same for ASCII.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::ServerError;
use crate::sql::users::{Verifier, equal_in_constant_time, hmac, sha256};

/// Between the first and the last message of the client.
pub struct Exchange {
    verifier: Verifier,
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

fn malformed() -> ServerError {
    ServerError::sql("08P01", "malformed SCRAM message")
}

impl Exchange {
    /// Takes the client's first message; `server_nonce` is fresh and printable.
    pub fn begin(message: &str, verifier: Verifier, server_nonce: &str) -> Result<Exchange, ServerError> {
        let mut parts = message.splitn(3, ',');
        let (flag, name, bare) = (parts.next(), parts.next(), parts.next());
        let (Some(flag @ ("n" | "y")), Some(name), Some(bare)) = (flag, name, bare) else {
            return Err(malformed());
        };
        let client_nonce = attribute(bare, "r=").filter(|nonce| !nonce.is_empty()).ok_or_else(malformed)?;
        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first =
            format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let gs2_header = format!("{flag},{name},");
        Ok(Exchange { verifier, gs2_header, client_first_bare: bare.to_string(), server_first, nonce })
    }

    /// What the server answers to it.
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Checks the client's last message; gives the server's last one, or none if the password is wrong.
    pub fn finish(&self, message: &str) -> Result<Option<String>, ServerError> {
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or_else(malformed)?;
        let proof = STANDARD.decode(proof).map_err(|_| malformed())?;
        let binding = attribute(without_proof, "c=").ok_or_else(malformed)?;
        let nonce = attribute(without_proof, "r=").ok_or_else(malformed)?;
        if binding != STANDARD.encode(&self.gs2_header) || nonce != self.nonce || proof.len() != 32 {
            return Err(malformed());
        }
        let signed = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = hmac(&self.verifier.stored_key, signed.as_bytes());
        let client_key: Vec<u8> =
            proof.iter().zip(signature).map(|(proof, signature)| proof ^ signature).collect();
        if !equal_in_constant_time(&sha256(&client_key), &self.verifier.stored_key) {
            return Ok(None);
        }
        let server_signature = hmac(&self.verifier.server_key, signed.as_bytes());
        Ok(Some(format!("v={}", STANDARD.encode(server_signature))))
    }
}

fn attribute<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677.
    #[test]
    fn known_exchange() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive("pencil", &salt, 4096);
        let server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let exchange = Exchange::begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", verifier, server_nonce).unwrap();
        let nonce = format!("rOprNGfwEbeRWgbNEkqO{server_nonce}");
        assert_eq!(exchange.server_first(), format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        let last = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let answer = exchange.finish(&last).unwrap();
        assert_eq!(answer.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        let wrong = last.replace("p=dHzb", "p=dHzc");
        assert_eq!(exchange.finish(&wrong).unwrap(), None);
        assert!(exchange.finish("c=biws,r=other,p=").is_err());
    }
}
