//! Prometheus text over plain HTTP/1.1, as an operator's scraper reads it.
//!
//! Knows just enough of the format: `name{label="value",…} number`.

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One reading of an endpoint.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The whole text.
    pub text: String,
}

impl Metrics {
    /// Reads `http://<address>/metrics`.
    ///
    /// # Errors
    /// When nothing answers there, or not with 200.
    pub async fn read(address: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await.with_context(|| format!("no metrics at {address}"))?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        ensure!(text.starts_with("HTTP/1.1 200"), "{:.200}", text);
        Ok(Self { text })
    }

    /// The sum of all samples of a name whose labels hold every word.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
            .filter_map(|(_, value)| value.trim().parse::<f64>().ok())
            .sum()
    }
}
