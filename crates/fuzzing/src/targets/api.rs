//! The bodies of the API's requests, with the values and the configuration file in them.

use crate::oracle::{fit_to_show, survives_json};
use flipside_config::{parse_mac, parse_network, parse_publish, resolve};
use flipside_model::api::{
    Accepted, CreateEvent, CreateRequest, PowerRequest, RestartRequest, RunEvent, RunRequest,
    SessionRequest,
};
use flipside_model::{Entry, Status, SystemSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Reads the bytes as every request, and as every answer, since a client meets foreign bytes as well.
pub fn api(data: &[u8]) {
    read::<PowerRequest>(data);
    read::<RestartRequest>(data);
    read::<RunRequest>(data);
    read::<Accepted>(data);
    read::<RunEvent>(data);
    read::<CreateEvent>(data);
    read::<Entry>(data);
    read::<Status>(data);
    read::<SystemSpec>(data);
    if let Some(request) = read::<SessionRequest>(data)
        && let Some(file) = request.config
        && let Err(problem) = resolve(&file).and_then(|resolved| resolved.staged())
    {
        fit_to_show(&problem);
    }
    if let Some(request) = read::<CreateRequest>(data) {
        let refused = [
            parse_network(&request.network).err(),
            request.mac.as_deref().and_then(|mac| parse_mac(mac).err()),
        ];
        let publish = request
            .publish
            .iter()
            .filter_map(|p| parse_publish(p).err());
        for problem in refused.into_iter().flatten().chain(publish) {
            fit_to_show(&problem);
        }
    }
}

fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(data).ok()?;
    survives_json(&value);
    Some(value)
}
