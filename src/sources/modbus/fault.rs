//! What a fault of Modbus is in OPC UA, and in words.
//!
//! No standard maps the exceptions of Modbus to status codes. Those of a read say something of the tag's configuration or of
//! the device; those of a write something of what was written.

use super::link::Fault;
use super::plan::Block;
use crate::model::{Quality, Status};
use tokio_modbus::ExceptionCode as Code;

/// Whether the device cannot read what a block asks for, so that a part of it may do better.
pub fn is_of_block(code: Code) -> bool {
    // Devices disagree on which of these means that a register does not exist.
    matches!(code, Code::IllegalDataAddress | Code::IllegalDataValue | Code::ServerDeviceFailure)
}

/// A gateway answers for a unit that does not.
pub fn is_of_gateway(code: Code) -> bool {
    matches!(code, Code::GatewayPathUnavailable | Code::GatewayTargetDevice)
}

pub fn of_read(code: Code, block: &Block) -> Quality {
    let status = match code {
        Code::IllegalFunction => Status::BAD_NOT_SUPPORTED,
        Code::IllegalDataAddress | Code::IllegalDataValue => Status::BAD_CONFIGURATION_ERROR,
        other => status(other),
    };
    let Block { area, address, count, .. } = block;
    let place = match count {
        1 => format!("{} {address}", area.name()),
        _ => format!("{} {address} to {}", area.name(), u32::from(*address) + u32::from(*count) - 1),
    };
    Quality::new(status, format!("{place}: {}", words(code)))
}

pub fn of_write(code: Code) -> Quality {
    let status = match code {
        Code::IllegalFunction => Status::BAD_NOT_SUPPORTED,
        Code::IllegalDataAddress => Status::BAD_NOT_WRITABLE,
        Code::IllegalDataValue => Status::BAD_OUT_OF_RANGE,
        other => status(other),
    };
    Quality::new(status, format!("the device refuses it: {}", words(code)))
}

fn status(code: Code) -> Status {
    match code {
        Code::Acknowledge | Code::ServerDeviceBusy => Status::BAD_RESOURCE_UNAVAILABLE,
        Code::GatewayPathUnavailable | Code::GatewayTargetDevice => Status::BAD_NO_COMMUNICATION,
        _ => Status::BAD_DEVICE_FAILURE,
    }
}

pub fn words(code: Code) -> String {
    let name = match code {
        Code::IllegalFunction => "illegal function",
        Code::IllegalDataAddress => "illegal data address",
        Code::IllegalDataValue => "illegal data value",
        Code::ServerDeviceFailure => "device failure",
        Code::Acknowledge => "acknowledged, but not done yet",
        Code::ServerDeviceBusy => "device busy",
        Code::MemoryParityError => "memory parity error",
        Code::GatewayPathUnavailable => "gateway path unavailable",
        Code::GatewayTargetDevice => "the gateway's target does not respond",
        Code::Custom(_) => "unknown to the standard",
    };
    format!("{name} (exception {})", u8::from(code))
}

/// Of a unit, in one line.
pub fn of_unit(fault: &Fault) -> String {
    match fault {
        Fault::Exception(code) => words(*code),
        Fault::Timeout(patience) => format!("no answer within {} ms", patience.as_millis()),
        Fault::Garbled(what) => what.clone(),
        Fault::Lost { reason, .. } => reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::modbus::plan::Area;

    #[test]
    fn faults_say_where_and_what() {
        let block = Block { area: Area::Holding, address: 42, count: 1, extents: 0..1 };
        let told = of_read(Code::IllegalDataAddress, &block).to_string();
        assert_eq!(told, "BadConfigurationError: holding 42: illegal data address (exception 2)");
        let block = Block { count: 4, ..block };
        let told = of_read(Code::ServerDeviceBusy, &block).to_string();
        assert_eq!(told, "BadResourceUnavailable: holding 42 to 45: device busy (exception 6)");
        let told = of_write(Code::IllegalDataValue).to_string();
        assert_eq!(told, "BadOutOfRange: the device refuses it: illegal data value (exception 3)");
        assert_eq!(of_write(Code::Custom(0x77)).status, Status::BAD_DEVICE_FAILURE);
    }
}
