//! Names to addresses, asynchronously, kept as long as their TTL says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use crate::http::target::Host;

/// The system's resolver configuration, hosts file included, with a cache of its own in each worker.
pub struct Resolver {
    resolver: TokioResolver,
}

/// Names kept in the cache.
const CACHED_NAMES: u64 = 4096;

impl Resolver {
    /// Reads the system's configuration; where there is none, only the hosts file and addresses resolve.
    pub fn system() -> Resolver {
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            log::warn!("no resolver configuration ({error}): only the hosts file answers");
            TokioResolver::builder_with_config(
                ResolverConfig::default(),
                TokioRuntimeProvider::default(),
            )
        });
        let mut builder = builder;
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.cache_size = CACHED_NAMES;
        let resolver = builder
            .build()
            .expect("a resolver without TLS has nothing to fail on");
        Resolver { resolver }
    }

    /// All addresses of `host`. The error is for people.
    pub async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, String> {
        let name = match host {
            Host::V4(address) => return Ok(vec![IpAddr::V4(*address)]),
            Host::V6(address) => return Ok(vec![IpAddr::V6(*address)]),
            Host::Name(name) => name,
        };
        // RFC 6761 section 6.3: names under localhost are loopback, whatever a server would say.
        if is_localhost(name) {
            return Ok(vec![
                IpAddr::V6(Ipv6Addr::LOCALHOST),
                IpAddr::V4(Ipv4Addr::LOCALHOST),
            ]);
        }
        // A name with a dot is absolute: no search list turns it into another one.
        let absolute = if name.contains('.') && !name.ends_with('.') {
            format!("{name}.")
        } else {
            name.to_string()
        };
        let found = self
            .resolver
            .lookup_ip(absolute)
            .await
            .map_err(|error| error.to_string())?;
        Ok(found.iter().collect())
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}
