//! Stub until the uplink lands.
use crate::{base::Stop, hub::Hub};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub broker: String,
}
impl Config {
    pub fn validate(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
pub struct Setup {
    pub config: Config,
    pub device_name: String,
    pub data_dir: PathBuf,
}
pub async fn run(_setup: Arc<Setup>, _hub: Hub, stop: Stop) {
    stop.stopped().await
}
