//! Where the database is and how it is spoken to: one connection, with or without TLS.
//!
//! TLS is verified, by name and by chain, or there is none: it never falls back to clear text where it is wanted.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Postgres, Tls};

/// What every session is told first: who is meant by a statement that hangs, that reading under a lock sees what others
/// have committed before, and that stored responses may be lost (purges ask for more).
const MANNERS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'; \
    SET default_transaction_isolation = 'read committed'; SET synchronous_commit = off; \
    SET client_min_messages = warning";
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Where a server of this machine listens, if nothing else is said.
const SOCKETS: [&str; 2] = ["/run/postgresql", "/tmp"];

#[derive(Clone)]
pub struct Server {
    config: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
}

type TlsStream = <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream;

/// The other half of a client: octets move while it is polled.
pub enum Line {
    Clear(Box<Connection<Socket, NoTlsStream>>),
    Secret(Box<Connection<Socket, TlsStream>>),
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{0}")]
    Url(tokio_postgres::Error),
    #[error("the file {0} with certificates cannot be used: {1}")]
    Roots(String, String),
}

impl Server {
    /// Errors: the URL is none, or the certificates that TLS is verified with cannot be read. Nothing is connected to.
    pub fn new(settings: &Postgres, role: &str) -> Result<Server, ServerError> {
        let mut config: tokio_postgres::Config =
            settings.url.reveal().parse().map_err(ServerError::Url)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            let socket = SOCKETS
                .iter()
                .find(|path| std::path::Path::new(path).is_dir());
            config.host_path(socket.unwrap_or(&SOCKETS[0]));
        }
        if config.get_password().is_none()
            && let Some(password) = &settings.password
        {
            config.password(password.reveal());
        }
        if config.get_application_name().is_none() {
            config.application_name(format!("baton {role}"));
        }
        config.connect_timeout(CONNECT);
        config.tcp_user_timeout(Duration::from_secs(10));
        let wanted = match (settings.tls, config.get_ssl_mode()) {
            (Tls::Off, _) | (Tls::Auto, SslMode::Disable) => false,
            (Tls::Auto, SslMode::Require) | (Tls::On, _) => true,
            (Tls::Auto, _) => !is_local(&config),
        };
        config.ssl_mode(match wanted {
            true => SslMode::Require,
            false => SslMode::Disable,
        });
        let tls = match wanted {
            true => Some(tls(settings)?),
            false => None,
        };
        Ok(Server { config, tls })
    }

    /// For a client that blocks.
    pub fn connect_blocking(&self) -> Result<postgres::Client, postgres::Error> {
        let config = postgres::Config::from(self.config.clone());
        let mut client = match &self.tls {
            Some(tls) => config.connect(tls.clone())?,
            None => config.connect(NoTls)?,
        };
        client.batch_execute(MANNERS)?;
        Ok(client)
    }

    /// The line must be polled for anything to happen.
    pub async fn connect(&self) -> Result<(Client, Line), tokio_postgres::Error> {
        match &self.tls {
            Some(tls) => {
                let (client, line) = self.config.connect(tls.clone()).await?;
                Ok((client, Line::Secret(Box::new(line))))
            }
            None => {
                let (client, line) = self.config.connect(NoTls).await?;
                Ok((client, Line::Clear(Box::new(line))))
            }
        }
    }

    /// Hosts with their ports, and the database, without anything secret.
    pub fn called(&self) -> String {
        let config = &self.config;
        let ports = config.get_ports();
        // One port is that of all hosts.
        let port = |at: usize| match ports {
            [] => 5432,
            [port] => *port,
            ports => ports.get(at).copied().unwrap_or(5432),
        };
        let name = |(at, host): (usize, &Host)| match host {
            // Of a password with an @ that is not encoded the rest is taken for the host's.
            Host::Tcp(name) => {
                let name = name.rsplit('@').next().unwrap_or_default();
                format!("{name}:{}", port(at))
            }
            Host::Unix(path) => format!("{}/.s.PGSQL.{}", path.display(), port(at)),
        };
        let mut hosts: Vec<String> = config.get_hosts().iter().enumerate().map(name).collect();
        if hosts.is_empty() {
            let addresses = config.get_hostaddrs().iter().enumerate();
            let addresses = addresses.map(|(at, ip)| SocketAddr::new(*ip, port(at)).to_string());
            hosts.extend(addresses);
        }
        let database = self.config.get_dbname().unwrap_or("its default");
        format!("{}, database {database}", hosts.join(", "))
    }
}

/// Says to a fresh session how it is to behave.
pub async fn greet(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(MANNERS).await
}

/// Whether what is said to the database stays on this machine. `hostaddr` is where a connection goes, whatever the host is
/// called.
fn is_local(config: &tokio_postgres::Config) -> bool {
    let is_local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
    };
    config.get_hosts().iter().all(is_local)
        && config.get_hostaddrs().iter().all(|it| it.is_loopback())
}

fn tls(settings: &Postgres) -> Result<MakeRustlsConnect, ServerError> {
    let mut roots = rustls::RootCertStore::empty();
    match &settings.ca_file {
        Some(path) => {
            let failed = |error: &dyn std::fmt::Display| {
                ServerError::Roots(path.display().to_string(), error.to_string())
            };
            use rustls::pki_types::pem::PemObject;
            let certificates = rustls::pki_types::CertificateDer::pem_file_iter(path);
            for certificate in certificates.map_err(|error| failed(&error))? {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
            if roots.is_empty() {
                return Err(failed(&"there is none in it"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ServerError::Roots("of the system".into(), error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

// === impl Line

impl Line {
    /// Something that the server says unasked; none: the connection has ended.
    pub fn poll_message(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, tokio_postgres::Error>>> {
        match self {
            Line::Clear(line) => line.poll_message(task),
            Line::Secret(line) => line.poll_message(task),
        }
    }
}

impl Future for Line {
    type Output = Result<(), tokio_postgres::Error>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Line::Clear(line) => Pin::new(line).poll(task),
            Line::Secret(line) => Pin::new(line).poll(task),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn what_leaves_the_machine_is_encrypted_unless_that_is_forbidden() {
        for (url, is_encrypted) in [
            ("postgres://u@/db", false),
            ("postgres://u@localhost/db", false),
            ("postgres://u@127.0.0.1,[::1]/db", false),
            ("postgres://u@/db?hostaddr=127.0.0.1", false),
            ("postgres://u@db.example/db", true),
            ("postgres://u@localhost,db.example/db", true),
            ("postgres://u@/db?hostaddr=192.0.2.1", true),
            ("postgres://u@localhost/db?hostaddr=192.0.2.1", true),
            ("postgres://u@db.example/db?sslmode=disable", false),
        ] {
            let settings = Postgres {
                url: Secret::new(url),
                ..Postgres::blank()
            };
            let server = Server::new(&settings, "test").unwrap();
            assert_eq!(server.tls.is_some(), is_encrypted, "{url}");
        }
    }

    #[test]
    fn it_is_called_by_host_port_and_database() {
        for (url, called) in [
            ("postgres://u:p@h/db", "h:5432, database db"),
            (
                "postgres://u@h:6432,i:7432/db?sslmode=disable",
                "h:6432, i:7432, database db",
            ),
            (
                "postgres://u@%2Frun%2Fpg:6432",
                "/run/pg/.s.PGSQL.6432, database its default",
            ),
            (
                "postgres://u@/db?hostaddr=::1&port=6432&sslmode=disable",
                "[::1]:6432, database db",
            ),
        ] {
            let settings = Postgres {
                url: Secret::new(url),
                ..Postgres::blank()
            };
            let server = Server::new(&settings, "test").unwrap();
            assert_eq!(server.called(), called);
        }
    }
}
