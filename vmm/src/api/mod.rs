//! The HTTP API.
use std::sync::Arc;
/// x
pub struct Listener;
impl Listener {
    /// x
    pub fn bind(_: &std::path::Path) -> std::io::Result<Self> {
        Ok(Self)
    }
}
/// x
pub async fn serve(
    _: Listener,
    _: crate::command::ControlHandle,
    _: Arc<crate::events::EventLog>,
    _: Arc<crate::metrics::Metrics>,
) {
}
