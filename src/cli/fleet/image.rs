//! `vedette fleet image`: one picture of a camera, now.

use super::super::remote::{self, Failure, Interrupt, Output};
use super::super::show;
use super::broker::{Broker, explain};
use super::call::{self, Ending, Patience, Request};
use super::host::Limits;
use super::node::{self, Written};
use crate::base::{bytes, duration};
use crate::mqtt::image_topic;
use crate::mqtt::line::Received;
use ::bytes::Bytes;
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    broker: Broker,
    /// The device: GROUP/NODE, or NODE if it can be heard.
    #[arg(value_name = "NODE", value_parser = node::parse)]
    node: Written,
    /// The camera's name.
    #[arg(value_name = "CAMERA")]
    camera: String,
    /// Where the JPEG is written to; "-" is the standard output.
    #[arg(short, long, value_name = "FILE", required = true)]
    output: PathBuf,
    /// The picture is made smaller until it fits, as in 256KiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_bytes: Option<u64>,
    /// How long to listen for a node that is not written in full.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    time: Duration,
    /// How long it may take.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
    /// For scripts: one JSON object.
    #[arg(long)]
    json: bool,
}

fn size(text: &str) -> Result<u64, String> {
    bytes::parse(text).ok_or_else(|| "write a whole number and a unit, as in 256KiB".into())
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    remote::run(async {
        let mut interrupt = Interrupt::new()?;
        tokio::select! {
            done = image(arguments) => done,
            () = interrupt.received() => Err(Failure::failed("interrupted".into())),
        }
    })
}

async fn image(arguments: &Arguments) -> Result<(), Failure> {
    let address = node::find_one(&arguments.broker, &arguments.node, arguments.time).await?;
    let topic = image_topic(&format!("vedette/{address}"), &arguments.camera);
    let mut session = arguments.broker.open_quietly(Limits::FEW, vec![topic.clone()]).await?;
    let mut args = json!({ "camera": arguments.camera });
    if let Some(most) = arguments.max_bytes {
        args["max_bytes"] = json!(most);
    }
    let request = Request::new("snapshot", args, "viewer");
    let patience = Patience { answer: arguments.timeout, end: arguments.timeout };
    // The one that was taken for this comes before the answer that it is done.
    let mut picture: Option<Bytes> = None;
    let ending = call::call(&mut session, &address, &request, patience, |received, _| {
        if received.topic == topic && !received.retain && is_asked_for(received) {
            picture = Some(received.payload.clone());
        }
        None
    });
    let result = match ending.await.map_err(|error| Failure::failed(explain(&error)))? {
        Ending::Done(result) => result,
        Ending::Failed(reason) => return Err(Failure::failed(format!("{address}: {reason}"))),
        Ending::Unanswered(reason) => return Err(Failure::Silent(format!("{address}: {reason}"))),
    };
    let picture = picture.ok_or_else(|| {
        Failure::failed(format!("{address}: it is done, but no picture came; may this user read {topic}?"))
    })?;
    let Some(("JPEG", size)) = show::picture(&picture) else {
        return Err(Failure::failed(format!("{address}: what came is no JPEG ({} bytes)", picture.len())));
    };
    write(&arguments.output, &picture)?;
    let mut output = Output::new(arguments.json);
    let (width, height) = size.unzip();
    if arguments.json {
        return output.json(&json!({
            "group": address.group, "node": address.node, "camera": arguments.camera, "bytes": picture.len(),
            "width": width, "height": height, "captured": result.get("captured"), "file": arguments.output,
        }));
    }
    if arguments.output.as_os_str() != "-" {
        let size = size.map_or(String::new(), |(width, height)| format!("{width}x{height}, "));
        output.line(&format!("{}: {size}{} bytes", arguments.output.display(), picture.len()))?;
    }
    Ok(())
}

/// Others are of a schedule or a trigger. MQTT 3.1.1 does not tell them apart.
fn is_asked_for(received: &Received) -> bool {
    let user = &received.properties.user;
    user.iter().find(|(key, _)| key == "cause").is_none_or(|(_, cause)| cause == "command")
}

fn write(path: &Path, picture: &[u8]) -> Result<(), Failure> {
    if path.as_os_str() == "-" {
        let mut stdout = std::io::stdout().lock();
        return Ok(stdout.write_all(picture).and_then(|()| stdout.flush())?);
    }
    let failed = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    std::fs::write(path, picture).map_err(failed)
}
