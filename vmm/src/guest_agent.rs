//! Commands for the QEMU guest agent, which speaks JSON a line on a console port.
//!
//! An answer that came too late must not be taken for that of the next command. So each command
//! begins with `guest-sync-delimited`: a byte that is no JSON, after which the agent forgets what it
//! heard before, and a number that it gives back behind the same byte. Whatever else comes is
//! passed over.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use caraway_virtio::PortEnd;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::command::{ApiError, ErrorCode};
use crate::config::units::Span;

/// Forget what came before.
const SENTINEL: u8 = 0xff;
/// The most bytes of an answer: what a file's piece of 4 MiB comes to.
const MOST_BYTES: usize = 8 << 20;
/// Lines that wait to be looked at.
const MOST_LINES: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// A command for the guest's agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentCommand {
    /// Its name, such as `guest-ping` or `guest-exec`.
    pub execute: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Map<String, Value>>,
    /// How long to wait for the answer, `10m` at most; `10s` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10s")]
    pub timeout: Option<Span>,
    /// Whether there is an answer; some commands, such as `guest-shutdown`, give none if they
    /// succeed. There is one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<bool>,
}

/// What the agent gave back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentAnswer {
    /// What the command's documentation says; an empty object if it gives nothing.
    #[serde(rename = "return")]
    pub returned: Value,
}

/// The host's end of the agent's port.
#[derive(Default)]
pub struct GuestAgent {
    inner: Mutex<Inner>,
    /// Rung when a line has come, the guest took what was sent, or its end was closed.
    news: Notify,
    /// One command at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Inner {
    /// The guest has its end open.
    is_there: bool,
    /// Somebody waits for lines.
    is_asked: bool,
    to_guest: VecDeque<u8>,
    line: Line,
    lines: VecDeque<Line>,
    wake: Option<Box<dyn Fn() + Send + Sync>>,
}

/// A line of the agent's.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Line {
    bytes: Vec<u8>,
    /// [`SENTINEL`] stood before it.
    is_first: bool,
    is_too_long: bool,
}

impl fmt::Debug for GuestAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestAgent").finish_non_exhaustive()
    }
}

impl GuestAgent {
    /// Calls `wake` whenever there are bytes for the guest.
    pub fn on_progress(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.inner.lock().wake = Some(Box::new(wake));
    }

    /// Gives the agent a command; what it answers.
    ///
    /// # Errors
    /// There is no agent, it refuses the command, or it gives no answer in time. None of that
    /// concerns the next command.
    pub async fn command(&self, command: AgentCommand) -> Result<AgentAnswer, ApiError> {
        let timeout = command.timeout.map_or(TIMEOUT, |span| span.0);
        if timeout > LONGEST_TIMEOUT {
            let error = ApiError::new(ErrorCode::BadRequest, "this is too long a time");
            return Err(error.path("timeout").hint("use \"10m\" at most"));
        }
        let answer = tokio::time::timeout(timeout, self.talk(&command)).await;
        answer.unwrap_or_else(|_| {
            let message = format!("the guest's agent did not answer in {}", Span(timeout));
            Err(ApiError::new(ErrorCode::Timeout, message)
                .hint("it may be busy, or frozen with the guest's file systems; try `guest-ping`"))
        })
    }

    async fn talk(&self, command: &AgentCommand) -> Result<AgentAnswer, ApiError> {
        let _turn = self.turn.lock().await;
        let talk = Talk::begin(self)?;
        // What JSON can carry as an integer everywhere.
        let id = Uuid::new_v4().as_u128() as u64 >> 12;
        let sync = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
        talk.say(&[&[SENTINEL], sync.to_string().as_bytes()].concat());
        loop {
            let line = talk.line().await?;
            if line.is_first && line.value().is_some_and(|value| value["return"] == id) {
                break;
            }
        }
        let mut request = json!({ "execute": command.execute });
        if let Some(arguments) = &command.arguments {
            request["arguments"] = Value::Object(arguments.clone());
        }
        talk.say(request.to_string().as_bytes());
        if command.answer == Some(false) {
            talk.taken().await?;
            let returned = json!({});
            return Ok(AgentAnswer { returned });
        }
        loop {
            let line = talk.line().await?;
            if line.is_too_long {
                let message = format!("the agent's answer is longer than {MOST_BYTES} bytes");
                return Err(ApiError::new(ErrorCode::AgentRefused, message));
            }
            let Some(mut value) = line.value() else {
                continue;
            };
            if let Some(returned) = value.get_mut("return") {
                let returned = returned.take();
                return Ok(AgentAnswer { returned });
            }
            if let Some(error) = value.get("error") {
                return Err(refusal(error));
            }
        }
    }
}

/// What the agent says of a command that it does not carry out.
fn refusal(error: &Value) -> ApiError {
    let text = |key: &str| error[key].as_str().unwrap_or("no reason").to_owned();
    let mut refusal = ApiError::new(ErrorCode::AgentRefused, text("desc"));
    refusal.causes = vec![text("class")];
    refusal.hint("`guest-info` lists the commands that the agent knows")
}

impl Line {
    fn value(&self) -> Option<Value> {
        serde_json::from_slice(&self.bytes).ok()
    }
}

/// A command under way; nothing of it is left when it ends, however it ends.
struct Talk<'a>(&'a GuestAgent);

impl<'a> Talk<'a> {
    fn begin(agent: &'a GuestAgent) -> Result<Self, ApiError> {
        let mut inner = agent.inner.lock();
        inner.clear();
        inner.is_asked = true;
        drop(inner);
        let talk = Self(agent);
        talk.check()?;
        Ok(talk)
    }

    fn check(&self) -> Result<(), ApiError> {
        let gone = || {
            ApiError::new(ErrorCode::NoAgent, "the guest's agent does not run")
                .hint("install `qemu-guest-agent` in the guest, or wait until it has started")
        };
        self.0.inner.lock().is_there.then_some(()).ok_or_else(gone)
    }

    fn say(&self, bytes: &[u8]) {
        let mut inner = self.0.inner.lock();
        inner.to_guest.extend(bytes);
        inner.to_guest.push_back(b'\n');
        if let Some(wake) = &inner.wake {
            wake();
        }
    }

    /// The next line.
    async fn line(&self) -> Result<Line, ApiError> {
        self.until(|inner| inner.lines.pop_front()).await
    }

    /// Waits until the guest took what was said.
    async fn taken(&self) -> Result<(), ApiError> {
        self.until(|inner| inner.to_guest.is_empty().then_some(()))
            .await
    }

    async fn until<T>(&self, mut find: impl FnMut(&mut Inner) -> Option<T>) -> Result<T, ApiError> {
        loop {
            let news = self.0.news.notified();
            if let Some(found) = find(&mut self.0.inner.lock()) {
                return Ok(found);
            }
            self.check()?;
            news.await;
        }
    }
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.clear();
        inner.is_asked = false;
    }
}

impl Inner {
    fn clear(&mut self) {
        self.to_guest.clear();
        self.line = Line::default();
        self.lines.clear();
    }

    fn hear(&mut self, byte: u8) {
        match byte {
            SENTINEL => {
                self.line = Line {
                    is_first: true,
                    ..Line::default()
                }
            }
            b'\n' => {
                let line = std::mem::take(&mut self.line);
                if self.lines.len() < MOST_LINES && (line.is_too_long || !line.bytes.is_empty()) {
                    self.lines.push_back(line);
                }
            }
            _ if self.line.bytes.len() == MOST_BYTES => {
                self.line.bytes = Vec::new();
                self.line.is_too_long = true;
            }
            _ if self.line.is_too_long => {}
            _ => self.line.bytes.push(byte),
        }
    }
}

impl PortEnd for GuestAgent {
    fn is_open(&self) -> bool {
        true
    }

    fn guest_opened(&self, open: bool) {
        self.inner.lock().is_there = open;
        self.news.notify_waiters();
    }

    fn take(&self, bytes: &[u8]) -> usize {
        let mut inner = self.inner.lock();
        if inner.is_asked {
            bytes.iter().for_each(|byte| inner.hear(*byte));
            self.news.notify_waiters();
        }
        bytes.len()
    }

    fn give(&self, buffer: &mut [u8]) -> usize {
        let mut inner = self.inner.lock();
        let count = buffer.len().min(inner.to_guest.len());
        for (place, byte) in buffer.iter_mut().zip(inner.to_guest.drain(..count)) {
            *place = byte;
        }
        if count > 0 {
            self.news.notify_waiters();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping() -> AgentCommand {
        AgentCommand {
            execute: "guest-ping".to_owned(),
            arguments: None,
            timeout: Some(Span(Duration::from_secs(5))),
            answer: None,
        }
    }

    /// What the guest was sent.
    fn heard(agent: &GuestAgent) -> Vec<Value> {
        let mut bytes = vec![0; 4096];
        let count = agent.give(&mut bytes);
        let lines = bytes[..count].split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let line = line.strip_prefix(&[SENTINEL]).unwrap_or(line);
                serde_json::from_slice(line).unwrap()
            })
            .collect()
    }

    /// Plays the agent: `answers` gives what is said to each request, besides to the sync.
    fn play(command: AgentCommand, answers: impl Fn(&Value) -> Vec<u8>) -> Result<Value, ApiError> {
        let agent = GuestAgent::default();
        agent.guest_opened(true);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(async {
            let command = agent.command(command);
            let guest = async {
                loop {
                    for request in heard(&agent) {
                        if request["execute"] == "guest-sync-delimited" {
                            let id = &request["arguments"]["id"];
                            let sync = json!({ "return": id }).to_string();
                            agent.take(b"{\"return\": \"of the last one\"}\n");
                            agent.take(&[&[SENTINEL], sync.as_bytes(), b"\n"].concat());
                        } else {
                            agent.take(&answers(&request));
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                answer = command => answer.map(|answer| answer.returned),
                () = guest => unreachable!("the guest plays on"),
            }
        })
    }

    #[test]
    fn an_answer_is_that_of_the_command_and_not_of_one_before() {
        let answer = play(ping(), |request| {
            assert_eq!(*request, json!({ "execute": "guest-ping" }));
            b"{\"return\": {\"pong\": 1}}\n".to_vec()
        });

        assert_eq!(answer.unwrap(), json!({ "pong": 1 }));
    }

    #[test]
    fn a_refusal_is_an_error_with_the_agent_s_words() {
        let words = br#"{"error": {"class": "CommandNotFound", "desc": "no such thing"}}"#;

        let error = play(ping(), |_| [&words[..], b"\n"].concat()).unwrap_err();

        assert_eq!(error.code, ErrorCode::AgentRefused);
        assert_eq!(error.message, "no such thing");
        assert_eq!(error.causes, ["CommandNotFound"]);
    }

    #[test]
    fn an_agent_that_says_nothing_is_given_up() {
        let timeout = Some(Span(Duration::from_millis(50)));

        let error = play(AgentCommand { timeout, ..ping() }, |_| Vec::new()).unwrap_err();

        assert_eq!(error.code, ErrorCode::Timeout);
        assert!(error.message.contains("50ms"), "{}", error.message);
    }

    #[test]
    fn a_command_without_an_answer_is_over_when_it_is_taken() {
        let shutdown = AgentCommand {
            answer: Some(false),
            ..ping()
        };

        assert_eq!(play(shutdown, |_| Vec::new()).unwrap(), json!({}));
    }

    #[test]
    fn what_is_no_json_is_passed_over() {
        let answer = play(ping(), |_| b"\xff\xffgarbage\n\n{\"return\": 5}\n".to_vec());

        assert_eq!(answer.unwrap(), json!(5));
    }

    #[test]
    fn an_answer_that_never_ends_is_refused() {
        let error = play(ping(), |_| {
            let mut endless = vec![b' '; MOST_BYTES + 10];
            endless.push(b'\n');
            endless
        });

        assert_eq!(error.unwrap_err().code, ErrorCode::AgentRefused);
    }

    #[test]
    fn without_an_agent_there_is_no_waiting() {
        let agent = GuestAgent::default();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();

        let error = runtime.block_on(agent.command(ping())).unwrap_err();

        assert_eq!(error.code, ErrorCode::NoAgent);
    }

    #[test]
    fn what_an_agent_says_unasked_is_forgotten() {
        let agent = GuestAgent::default();
        agent.guest_opened(true);

        let taken = agent.take(&[b'x'; 1000]);

        assert_eq!(taken, 1000);
        assert_eq!(agent.inner.lock().line, Line::default());
    }
}
