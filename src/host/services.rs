//! What a machine's network is made of: the metadata service, names, published ports.
//!
//! The network is made anew for each boot of the guest, for its flows end with it. The metadata service is made once: its
//! tokens and its identity document live as long as the instance runs.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::event::{Event, MetadataChange};
use super::firewall::Firewall;
use super::instance::Tell;
use super::running::StartError;
use super::spec::{self, HOST_ALIAS, InstanceSpec, SecurityGroups};
use super::stage::Stage;
use crate::ec2::network::{DNS_ADDRESS, IMDS_ADDRESS, Ipv4Cidr, NTP_ADDRESS, private_host_name};
use crate::imds::Connection;
use crate::imds::IdentityKeys;
use crate::imds::{Metadata, SecurityGroup, Service, system_clock};
use crate::net::{NetConfig, Network, PortForward, Protocol, SessionState, StreamService, StreamSession};

/// As in a VPC.
pub(super) const MTU: u16 = crate::ec2::network::MTU;
/// The router's address on the guest's link: locally administered, and no guest's.
const ROUTER_MAC: [u8; 6] = [0x02, 0xa3, 0x1a, 0x00, 0x00, 0x01];
/// EC2's lease time.
const LEASE_SECONDS: u32 = 3600;
/// The keys' file in their directory.
pub const KEYS_FILE: &str = "keys.pem";

/// The services of one instance.
pub(super) struct Services {
    imds: Arc<Service>,
    /// What it shows.
    metadata: Mutex<Metadata>,
    firewall: Arc<Firewall>,
    tell: Tell,
    /// The ports that the first boot's network took: the next ones keep them.
    published: Mutex<Option<Vec<spec::PortForward>>>,
}

impl Services {
    /// Make them.
    pub fn new(spec: &InstanceSpec, tell: &Tell) -> Result<Self, StartError> {
        let keys = OnceLock::new();
        let directory = spec.identity_keys.clone();
        let failed = tell.clone();
        let provider: crate::imds::KeyProvider = Arc::new(move || {
            keys.get_or_init(|| {
                identity_keys(&directory)
                    .inspect_err(|e| {
                        failed(Event::Warning { text: format!("the instance identity document is not signed: {e}") });
                    })
                    .ok()
            })
            .clone()
        });
        if !spec.identity_keys.join(KEYS_FILE).exists() {
            // Making keys takes a second; the guest takes longer to ask for what they sign.
            let first = provider.clone();
            std::thread::Builder::new().name("identity keys".into()).spawn(move || drop(first()))?;
        }
        let log = tell.clone();
        let imds = Service::new(spec.metadata.clone(), Some(provider), system_clock())
            .with_log(move |entry| log(Event::Imds { entry }));
        let metadata = Mutex::new(spec.metadata.clone());
        Ok(Services {
            imds: Arc::new(imds),
            metadata,
            firewall: Arc::new(Firewall::new(&spec.network, tell.clone())),
            tell: tell.clone(),
            published: Mutex::default(),
        })
    }

    /// Show other metadata from now on.
    pub fn change(&self, change: MetadataChange) {
        let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        (metadata.tags, metadata.options) = (change.tags, change.options);
        self.imds.update(&metadata);
    }

    /// Filter by these groups from now on, and show them. Flows that are there go on.
    pub fn set_groups(&self, set: &SecurityGroups) {
        let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.firewall.set(set) {
            return;
        }
        let named = set.groups.iter().map(|g| SecurityGroup { id: g.group_id.clone(), name: g.group_name.clone() });
        if let Some(interface) = metadata.network_interfaces.first_mut() {
            interface.security_groups = named.collect();
        }
        self.imds.update(&metadata);
    }

    /// A network for one boot.
    pub fn network(&self, spec: &InstanceSpec) -> Result<Network, StartError> {
        let of = &spec.network;
        let mask = u32::MAX.checked_shl(32 - u32::from(of.prefix.min(32))).unwrap_or(0);
        let subnet = Ipv4Cidr { address: Ipv4Addr::from(u32::from(of.address) & mask), prefix: of.prefix };
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let forwards = published.as_ref().unwrap_or(&of.forwards).iter().map(|f| PortForward {
            protocol: if f.udp { Protocol::Udp } else { Protocol::Tcp },
            host: f.host,
            guest_port: f.guest_port,
        });
        let (lease, detail) = (self.tell.clone(), of.address.to_string());
        let leased = move || lease(Event::Stage { stage: Stage::Dhcp, detail: Some(detail.clone()) });
        let network = Network::new(NetConfig {
            guest_mac: of.mac,
            guest_ip: of.address,
            prefix: of.prefix,
            gateway_mac: ROUTER_MAC,
            gateway_ip: subnet.router(),
            dns: vec![of.dns, DNS_ADDRESS],
            domain: of.domain.clone(),
            host_name: private_host_name(of.address),
            mtu: MTU,
            lease_seconds: LEASE_SECONDS,
            names: Vec::new(),
            upstreams: of.upstreams.clone(),
            forwards: forwards.collect(),
            ntp: Some(NTP_ADDRESS),
            services: vec![(SocketAddrV4::new(IMDS_ADDRESS, 80), Arc::new(Imds(self.imds.clone())))],
            on_lease: Some(Arc::new(leased)),
            gate: Some(self.firewall.clone()),
            host_alias: of.host_loopback.map(|to| (HOST_ALIAS, to)),
        })?;
        if published.is_none() {
            let listening = network.forwards();
            let taken = listening.iter().map(|f| spec::PortForward {
                host: f.host,
                guest_port: f.guest_port,
                udp: f.protocol == Protocol::Udp,
            });
            let forwards: Vec<_> = taken.collect();
            *published = Some(forwards.clone());
            (self.tell)(Event::Published { forwards });
        }
        Ok(network)
    }
}

/// The metadata service as the network knows services.
struct Imds(Arc<Service>);

impl StreamService for Imds {
    fn open(&self, _peer: SocketAddrV4) -> Box<dyn StreamSession> {
        Box::new(ImdsSession(Connection::new(self.0.clone())))
    }
}

struct ImdsSession(Connection);

/// A client that pipelines more than this many rounds of answers at once is sent away.
const MOST_ROUNDS: u32 = 16;

impl StreamSession for ImdsSession {
    fn receive(&mut self, bytes: &[u8], reply: &mut Vec<u8>) -> SessionState {
        let mut outcome = self.0.receive(bytes, reply);
        let mut hop_limit = outcome.hop_limit;
        for _ in 0..MOST_ROUNDS {
            if !outcome.pending {
                return SessionState { close: outcome.close, hop_limit };
            }
            outcome = self.0.receive(&[], reply);
            hop_limit = outcome.hop_limit.or(hop_limit);
        }
        SessionState { close: true, hop_limit }
    }
}

/// The region's keys, made if there are none yet.
pub(super) fn identity_keys(directory: &Path) -> Result<Arc<IdentityKeys>, StartError> {
    let path = directory.join(KEYS_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(Arc::new(IdentityKeys::from_pem(&text)?)),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        Err(_) => {}
    }
    let keys = IdentityKeys::generate()?;
    std::fs::create_dir_all(directory)?;
    // Readable by this user alone, as temporary files are; there at once or not at all. If another process was quicker, its
    // keys are the region's.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    io::Write::write_all(&mut file, keys.to_pem()?.as_bytes())?;
    match file.persist_noclobber(&path) {
        Ok(_) => Ok(Arc::new(keys)),
        Err(_) => Ok(Arc::new(IdentityKeys::from_pem(&std::fs::read_to_string(&path)?)?)),
    }
}
