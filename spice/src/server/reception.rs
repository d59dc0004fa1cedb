//! The reception: takes connections through the link stage and joins them to sessions.

use std::sync::Arc;
use std::time::Instant;

use rand::Rng;

use super::{Config, Second, Server, Sharing};
use crate::channel::{self, Context};
use crate::link::guard::Peer;
use crate::link::keys::Lease;
use crate::link::message::LinkMessage;
use crate::link::{self, Proof, Refusal};
use crate::listener::Connection;
use crate::protocol::{ChannelKind, LinkResult};
use crate::session::{Ending, Session, SessionEvent};
use crate::ticket::{Lapse, Permissions, Presented, Recognised, Ticket, TicketSet};
use crate::tls::Tls;
use crate::transport::{self, Opened, Security, Site};
use crate::wire::BoxedStream;
use std::sync::atomic::Ordering;

impl Server {
    /// Serves one connection to its end.
    pub(super) async fn welcome(self: Arc<Self>, connection: Connection, tls: Option<Arc<Tls>>) {
        let Connection {
            stream,
            security,
            peer,
        } = connection;
        let pass = self.guard.enter(peer.source);
        let opened = match &pass {
            Ok(_) => transport::open(stream, security, tls.as_deref(), self.site()).await,
            Err(refusal) => Err(refusal.clone()),
        };
        let (mut stream, security) = match opened {
            Ok(Opened::Link(stream, security)) => (stream, security),
            Ok(Opened::Served) => return,
            Err(refusal) => return self.note(&refusal, peer),
        };
        match self.link(&mut stream, security, &peer).await {
            Ok((context, wanted)) => {
                drop(pass);
                self.attend(context, stream, &wanted).await;
            }
            Err(refusal) => {
                self.note(&refusal, peer);
                if refusal.result().is_some() {
                    link::part(&mut stream).await;
                }
            }
        }
    }

    /// Logs a refusal and tells the observer.
    fn note(&self, refusal: &Refusal, peer: Peer) {
        let (peer, code, reason) = (peer.name, refusal.code(), refusal.to_string());
        tracing::info!(peer, code, reason, "SPICE connection refused");
        self.observer.event(SessionEvent::Refused {
            peer,
            code,
            reason,
            ticket: refusal.ticket().map(str::to_owned),
        });
    }

    /// What browsers find here.
    fn site(&self) -> Site<'_> {
        let Config {
            name,
            console,
            origins,
            secure_channels,
            ..
        } = &self.config;
        let port = self.secure_port.load(Ordering::Relaxed);
        let secured = port != 0 && secure_channels.contains(ChannelKind::Main);
        Site {
            title: name,
            console: console.as_ref(),
            origins,
            secure_port: secured.then_some(port),
        }
    }

    /// The link stage: makes a connection a channel of a session.
    async fn link(
        self: &Arc<Self>,
        stream: &mut BoxedStream,
        security: Security,
        peer: &Peer,
    ) -> Result<(Context, LinkMessage), Refusal> {
        let (wanted, key) = match self.receive(stream, security, peer).await {
            Ok(received) => received,
            Err(refusal) => {
                link::turn_away(stream, &refusal).await;
                return Err(refusal);
            }
        };
        let proof = match self.tickets {
            None => Proof::Ignored,
            Some(_) => Proof::Wanted,
        };
        let admitted = match link::ticket(stream, &wanted, key, proof).await {
            Ok(plain) => {
                let plain = plain.as_ref().map(|plain| plain.as_slice());
                self.admit(&wanted, peer, plain, security)
            }
            Err(refusal) => Err(refusal),
        };
        let result = match &admitted {
            Ok(_) => Some(LinkResult::Ok),
            Err(refusal) => refusal.result(),
        };
        let concluded = match result {
            Some(code) => link::conclude(stream, code).await,
            None => Ok(()),
        };
        let context = admitted?;
        if let Err(refusal) = concluded {
            self.dismiss(&context, Ending::Vanished);
            return Err(refusal);
        }
        Ok((context, wanted))
    }

    /// All that comes before the reply: what the client wants, and a key for its ticket. Whoever
    /// guessed passwords gets none, unless a session waits for its channel: that one knew the
    /// password once, and shares its address with who does not.
    async fn receive(
        &self,
        stream: &mut BoxedStream,
        security: Security,
        peer: &Peer,
    ) -> Result<(LinkMessage, Lease), Refusal> {
        let wanted = link::hello(stream, security, &self.config.secure_channels).await?;
        let keys = self.keys.get().ok_or(Refusal::Unavailable)?;
        let continues = self.sessions.lock().contains_key(&wanted.connection_id);
        if !continues {
            self.guard.check(peer.source, Instant::now())?;
        }
        let key = link::key(keys).await?;
        Ok((wanted, key))
    }

    /// Finds or makes the session and opens the channel in it, if the ticket is good for that.
    /// Nobody without one learns what sessions and channels there are.
    pub(super) fn admit(
        self: &Arc<Self>,
        wanted: &LinkMessage,
        peer: &Peer,
        plain: Option<&[u8]>,
        security: Security,
    ) -> Result<Context, Refusal> {
        let session = self.sessions.lock().get(&wanted.connection_id).cloned();
        let proven = match &self.tickets {
            None => Proven::NotAsked,
            Some(tickets) => {
                let presented = tickets.present(plain);
                prove(tickets, &presented, session.as_deref()).inspect_err(|refusal| {
                    // Whoever comes with a ticket that was good once did not guess.
                    if *refusal == Refusal::WrongTicket {
                        self.guard.failed(peer.source, Instant::now());
                    }
                })?
            }
        };
        let no_channel = Refusal::NoSuchChannel {
            kind: wanted.channel_type,
            id: wanted.channel_id,
        };
        let kind = ChannelKind::from_wire(wanted.channel_type).ok_or(no_channel.clone())?;
        let there = match (kind, wanted.channel_id) {
            (ChannelKind::Main, id) => id == 0,
            (kind, id) => self.devices.has_channel(kind, id),
        };
        if !there {
            return Err(no_channel);
        }
        if *self.shutdown.borrow() {
            return Err(Refusal::Unavailable);
        }
        let session = match (kind, wanted.connection_id, proven, session) {
            (ChannelKind::Main, 0, Proven::New(ticket), _) => {
                self.new_session(peer, Some(ticket))?
            }
            (ChannelKind::Main, 0, Proven::NotAsked, _) => self.new_session(peer, None)?,
            // A main channel with an id continues a migrated session, and none was migrated here.
            (ChannelKind::Main, id, ..) => return Err(Refusal::NoSuchSession { id }),
            (_, _, Proven::NotAsked | Proven::Session, Some(session)) => session,
            (_, id, ..) => return Err(Refusal::NoSuchSession { id }),
        };
        if !session.permissions().allows(kind) {
            return Err(Refusal::NotPermitted { kind });
        }
        let channel = session
            .open(kind, wanted.channel_id, security)
            .ok_or(Refusal::TooManyChannels)?;
        Ok(Context {
            server: self.clone(),
            session,
            channel,
            capabilities: wanted.channel.clone(),
        })
    }

    fn new_session(
        &self,
        peer: &Peer,
        ticket: Option<Arc<Ticket>>,
    ) -> Result<Arc<Session>, Refusal> {
        let mut sessions = self.sessions.lock();
        let limit = self.config.max_sessions;
        if sessions.len() >= limit {
            return Err(Refusal::TooManySessions { limit });
        }
        let live = || {
            let all = sessions.values();
            all.filter(|session| session.has_ended().is_none())
        };
        let granted = match self.config.sharing {
            Sharing::Exclusive(Second::Refuse) if live().next().is_some() => {
                return Err(Refusal::Occupied);
            }
            Sharing::ViewOnly if live().any(|session| session.permissions().input) => {
                Permissions::VIEW_ONLY
            }
            _ => Permissions::ALL,
        };
        let granted = match (&self.tickets, &ticket) {
            (Some(tickets), Some(ticket)) => {
                let redeemed = tickets.redeem(ticket, Instant::now());
                redeemed.map_err(|lapse| Refusal::lapsed(ticket, lapse))?;
                granted.and(&ticket.permissions)
            }
            _ => granted,
        };
        if self.config.sharing == Sharing::Exclusive(Second::TakeOver) {
            live().for_each(|session| session.end(Ending::TakenOver));
        }
        // Ids are a secret of a kind: whoever has the password and the id may join the session.
        let id = loop {
            let id = rand::thread_rng().r#gen();
            if id != 0 && !sessions.contains_key(&id) {
                break id;
            }
        };
        let session = Session::new(id, peer.name.clone(), ticket, granted);
        sessions.insert(id, session.clone());
        self.population.send_replace(sessions.len());
        Ok(session)
    }

    /// Serves a channel, and ends its session if it was the main one or broke the protocol.
    pub(super) async fn attend(&self, context: Context, stream: BoxedStream, wanted: &LinkMessage) {
        let (session, kind) = (context.session.id, context.channel.kind);
        let peer = context.session.peer.clone();
        if kind == ChannelKind::Main {
            let ticket = context.session.ticket().map(|ticket| ticket.id.clone());
            tracing::info!(session, peer, ticket, "SPICE client connected");
            self.observer.event(SessionEvent::Connected {
                session,
                peer,
                ticket,
            });
        }
        let id = context.channel.id;
        self.observer.event(SessionEvent::ChannelOpened {
            session,
            channel: kind,
            id,
        });

        let ending = channel::run(&context, stream, wanted.framing()).await;
        tracing::debug!(session, channel = %kind, id, %ending, "SPICE channel closed");
        self.dismiss(&context, ending);
        if kind == ChannelKind::Main {
            let reason = context.session.has_ended().unwrap_or(Ending::Closed);
            let peer = context.session.peer.clone();
            tracing::info!(session, peer, %reason, "SPICE client disconnected");
            self.observer.event(SessionEvent::Disconnected {
                session,
                peer,
                reason,
            });
        }
    }

    /// Takes a channel out of its session; the session too, if it cannot go on without.
    fn dismiss(&self, context: &Context, ending: Ending) {
        let Context {
            session, channel, ..
        } = context;
        session.close(channel);
        let is_main = channel.kind == ChannelKind::Main;
        if is_main || ending.is_violation() {
            session.end(ending);
        }
        if is_main {
            let mut sessions = self.sessions.lock();
            sessions.remove(&session.id);
            self.population.send_replace(sessions.len());
        }
    }
}

/// What a client has proven.
enum Proven {
    /// Nothing, and nothing was asked.
    NotAsked,
    /// That the session is its own.
    Session,
    /// That it may have a new session.
    New(Arc<Ticket>),
}

/// Checks what a client presented. If it names a session, only that session's ticket will do, which
/// counts as long as the session lives: whoever has a session may not use it to guess at the others.
fn prove(
    tickets: &TicketSet,
    presented: &Presented,
    session: Option<&Session>,
) -> Result<Proven, Refusal> {
    let recognised = tickets.recognise(presented, Instant::now());
    match (session.and_then(Session::ticket), recognised) {
        (Some(own), _) if own.is(presented) => Ok(Proven::Session),
        (Some(_), _) | (None, Recognised::Unknown) => Err(Refusal::WrongTicket),
        (None, Recognised::Valid(ticket)) => Ok(Proven::New(ticket)),
        (None, Recognised::Lapsed(ticket, lapse)) => Err(Refusal::lapsed(&ticket, lapse)),
    }
}

impl Refusal {
    fn lapsed(ticket: &Ticket, lapse: Lapse) -> Self {
        let id = ticket.id.clone();
        Self::LapsedTicket { id, lapse }
    }
}
