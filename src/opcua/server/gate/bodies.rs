//! The bodies of ExtensionObjects that clients send, encrypted or not.
//!
//! The UA crate (0.19) reads a type that it knows without regard to the length that was announced, makes room for that
//! length before it reads one that it does not know, and fills an Argument up to as many dimensions as its ValueRank says:
//! 150 bytes become 8 GiB. Its type loaders can be wrapped: here each gets the bytes that are really there, and no client
//! has a reason to send an Argument.

use ::opcua::sync::RwLock;
use ::opcua::types::{
    Context, DataTypeId, DynEncodable, EncodingResult, Error, NodeId, ObjectId, TypeLoader, TypeLoaderCollection,
    TypeLoaderPriority,
};
use std::io::Read;
use std::sync::Arc;

/// Argument, and what contains it. The crate takes the NodeId of a DataType for that of its encoding.
const REFUSED: [u32; 6] = [
    DataTypeId::Argument as u32,
    DataTypeId::ProgramDiagnosticDataType as u32,
    DataTypeId::ProgramDiagnostic2DataType as u32,
    ObjectId::Argument_Encoding_DefaultBinary as u32,
    ObjectId::ProgramDiagnosticDataType_Encoding_DefaultBinary as u32,
    ObjectId::ProgramDiagnostic2DataType_Encoding_DefaultBinary as u32,
];

/// Puts itself before the loaders of a server that does not serve yet.
pub fn guard(loaders: &RwLock<TypeLoaderCollection>) {
    let mut loaders = loaders.write();
    let mut guarded = TypeLoaderCollection::new_empty();
    guarded.add_type_loader(Bodies { loaders: loaders.iter().cloned().collect() });
    *loaders = guarded;
}

struct Bodies {
    loaders: Vec<Arc<dyn TypeLoader>>,
}

impl TypeLoader for Bodies {
    fn load_from_binary(
        &self,
        id: &NodeId,
        stream: &mut dyn Read,
        context: &Context<'_>,
        length: Option<usize>,
    ) -> Option<EncodingResult<Box<dyn DynEncodable>>> {
        if id.namespace == 0 && id.as_u32().is_some_and(|id| REFUSED.contains(&id)) {
            return Some(Err(Error::decoding(format!("a client has no reason to send a structure of the type {id}"))));
        }
        let length = length?;
        let mut body = Vec::new();
        let announced = u64::try_from(length).unwrap_or(u64::MAX);
        match stream.take(announced).read_to_end(&mut body) {
            Ok(count) if count == length => {}
            Ok(_) => return Some(Err(Error::decoding("a structure ends before its length"))),
            Err(error) => return Some(Err(error.into())),
        }
        self.loaders.iter().find_map(|loader| loader.load_from_binary(id, &mut &body[..], context, Some(length)))
    }

    fn priority(&self) -> TypeLoaderPriority {
        TypeLoaderPriority::Core
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::opcua::types::{
        AnonymousIdentityToken, Argument, BinaryDecodable, BinaryEncodable, ContextOwned, DecodingOptions,
        ExtensionObject, NamespaceMap, UAString,
    };

    fn decode(bytes: &[u8]) -> EncodingResult<ExtensionObject> {
        let loaders = RwLock::new(TypeLoaderCollection::new());
        guard(&loaders);
        let context = ContextOwned::new(NamespaceMap::new(), loaders.into_inner(), DecodingOptions::default());
        ExtensionObject::decode(&mut &bytes[..], &context.context())
    }

    fn encode(object: &ExtensionObject) -> Vec<u8> {
        let context = ContextOwned::default();
        let mut bytes = Vec::new();
        object.encode(&mut bytes, &context.context()).unwrap();
        bytes
    }

    #[test]
    fn what_an_honest_client_sends_is_decoded_as_before() {
        let token = ExtensionObject::from_message(AnonymousIdentityToken { policy_id: UAString::from("anonymous") });
        let bytes = encode(&token);
        assert_eq!(decode(&bytes).unwrap(), token);
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        // Of no known type: kept as it is.
        assert!(decode(&[1, 9, 0xFF, 0x7F, 1, 2, 0, 0, 0, 1, 2]).is_ok());
    }

    #[test]
    fn a_structure_is_as_long_as_it_says_and_not_longer() {
        let token = ExtensionObject::from_message(AnonymousIdentityToken { policy_id: UAString::from("anonymous") });
        let mut bytes = encode(&token);
        // The length follows a NodeId of four bytes and the encoding.
        bytes[5] = 3;
        assert!(decode(&bytes).is_err());
        bytes[5..9].copy_from_slice(&i32::MAX.to_le_bytes());
        assert!(decode(&bytes).is_err());
    }

    #[test]
    fn nobody_sends_an_argument() {
        let mut bytes = encode(&ExtensionObject::from_message(Argument::default()));
        assert!(decode(&bytes).is_err());
        // The NodeId of the encoding is 298, that of the DataType 296, and 299 is neither.
        bytes[2] -= 2;
        assert!(decode(&bytes).is_err());
        bytes[2] += 3;
        assert!(decode(&bytes).is_ok());
    }
}
