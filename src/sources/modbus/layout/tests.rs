use super::*;
use proptest::prelude::*;

fn layout(kind: Type, order: Order) -> Layout {
    Layout { kind, order, bit: None, count: None, text: 0, scaling: None }
}

fn scaled(kind: Type, scale: f64, offset: f64) -> Layout {
    Layout { scaling: Some(Scaling { scale, offset }), ..layout(kind, Order::Abcd) }
}

const ORDERS: [Order; 4] = [Order::Abcd, Order::Cdab, Order::Badc, Order::Dcba];

#[test]
fn the_letters_are_the_bytes_on_the_wire() {
    let read = |order, registers: &[u16]| layout(Type::UInt32, order).of_registers(registers).unwrap();
    for (order, registers) in [
        (Order::Abcd, [0x0A0B, 0x0C0D]),
        (Order::Cdab, [0x0C0D, 0x0A0B]),
        (Order::Badc, [0x0B0A, 0x0D0C]),
        (Order::Dcba, [0x0D0C, 0x0B0A]),
    ] {
        assert_eq!(read(order, &registers), Value::UInt32(0x0A0B_0C0D), "{order:?}");
    }
    let double = |order, registers: &[u16]| layout(Type::Double, order).of_registers(registers).unwrap();
    assert_eq!(double(Order::Abcd, &[0x3FF8, 0, 0, 1]), Value::Double(f64::from_bits(0x3FF8_0000_0000_0001)));
    assert_eq!(double(Order::Cdab, &[1, 0, 0, 0x3FF8]), Value::Double(f64::from_bits(0x3FF8_0000_0000_0001)));
    let word = |order| layout(Type::UInt16, order).of_registers(&[0x1234]).unwrap();
    assert_eq!([word(Order::Cdab), word(Order::Badc)], [Value::UInt16(0x1234), Value::UInt16(0x3412)]);
}

#[test]
fn bits_follow_the_order_of_bytes() {
    let bit = |bit, order| Layout { bit: Some(bit), ..layout(Type::Boolean, order) };
    let read = |at, order, register| bit(at, order).of_registers(&[register]).unwrap();
    assert_eq!(read(0, Order::Abcd, 1), Value::Boolean(true));
    assert_eq!(read(15, Order::Abcd, 0x7FFF), Value::Boolean(false));
    assert_eq!(read(0, Order::Badc, 0x0100), Value::Boolean(true));
    let write = bit(0, Order::Badc).to_raw(&Value::Boolean(true), false);
    assert_eq!(write, Ok(Raw::Bit { mask: 0x0100, set: true }));
    let coils = Layout { count: Some(2), ..layout(Type::Boolean, Order::Abcd) };
    let value = coils.of_coils(&[true, false]);
    assert_eq!(coils.to_raw(&value, true), Ok(Raw::Coils(vec![true, false])));
}

#[test]
fn texts_end_at_nul_and_fit() {
    let text = Layout { text: 8, ..layout(Type::String, Order::Abcd) };
    let read = |registers: &[u16]| text.of_registers(registers).unwrap();
    assert_eq!(read(&[0x4142, 0x4320, 0, 0x4445]), Value::string("ABC"));
    assert_eq!(read(&[0x46FC, 0x6C6C, 0, 0]), Value::string("Füll"), "Latin-1");
    let Raw::Registers(registers) = text.to_raw(&Value::string("Füll"), false).unwrap() else { panic!("registers") };
    assert_eq!(registers, [0x46C3, 0xBC6C, 0x6C00, 0]);
    assert_eq!(read(&registers), Value::string("Füll"), "UTF-8");
    let swapped = Layout { order: Order::Badc, ..text.clone() };
    assert_eq!(swapped.of_registers(&[0x4241, 0x43, 0, 0]).unwrap(), Value::string("ABC"));
    let odd = Layout { text: 5, ..text.clone() };
    assert_eq!(odd.size(), 3);
    assert_eq!(odd.of_registers(&[0x4142, 0x4344, 0x4546]).unwrap(), Value::string("ABCDE"), "F is another's");
    assert!(odd.to_raw(&Value::string("123456"), false).is_err());
    let refused = text.to_raw(&Value::string("123456789"), false).unwrap_err();
    assert_eq!(refused.to_string(), "BadOutOfRange: the text has 9 bytes, and there is room for 8");
    assert_eq!(text.to_raw(&Value::String(None), false), Ok(Raw::Registers(vec![0; 4])));
}

#[test]
fn scaled_values_are_doubles_and_are_inverted_with_their_limits() {
    let tenths = scaled(Type::Int16, 0.1, -40.0);
    assert_eq!(tenths.data_type(), DataType::Double);
    assert_eq!(tenths.of_registers(&[(-5_i16) as u16]).unwrap(), Value::Double(-40.5));
    let write = |layout: &Layout, value| layout.to_raw(&Value::Double(value), false);
    assert_eq!(write(&tenths, -40.5), Ok(Raw::Registers(vec![(-5_i16) as u16])));
    let refused = write(&tenths, 4000.0).unwrap_err();
    assert_eq!(refused.to_string(), "BadOutOfRange: 4000 would be 40400 in the device, which holds -32768 to 32767");
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for kind in [Type::UInt16, Type::Int32, Type::UInt64, Type::Int64, Type::Bcd16] {
            assert_eq!(write(&scaled(kind, 1.0, 0.0), bad).unwrap_err().status, Status::BAD_OUT_OF_RANGE);
        }
    }
    assert!(write(&scaled(Type::UInt64, 1.0, 0.0), 2_f64.powi(64)).is_err());
    assert!(write(&scaled(Type::Int64, 1.0, 0.0), 2_f64.powi(63)).is_err());
    assert!(write(&scaled(Type::Float, 0.5, 0.0), 3e38).is_err());
    assert!(write(&scaled(Type::UInt16, 1.0, 0.0), -1.0).is_err());
}

#[test]
fn decimal_digits() {
    let bcd = layout(Type::Bcd32, Order::Abcd);
    assert_eq!(bcd.of_registers(&[0x1234, 0x5678]).unwrap(), Value::UInt32(12_345_678));
    assert_eq!(bcd.to_raw(&Value::UInt32(12_345_678), false), Ok(Raw::Registers(vec![0x1234, 0x5678])));
    assert_eq!(bcd.of_registers(&[0x12A4, 0]).unwrap_err().to_string(), "BadOutOfRange: 0x12A40000 is no BCD number");
    assert!(layout(Type::Bcd16, Order::Abcd).to_raw(&Value::UInt16(10_000), false).is_err());
}

#[test]
fn arrays_have_their_length() {
    let array = Layout { count: Some(3), ..layout(Type::Int32, Order::Cdab) };
    assert_eq!(array.size(), 6);
    let value = array.of_registers(&[1, 0, 2, 0, 3, 0]).unwrap();
    let elements = vec![Value::Int32(1), Value::Int32(2), Value::Int32(3)];
    assert_eq!(value, Array::new(DataType::Int32, elements, None).unwrap().into());
    assert_eq!(array.to_raw(&value, false), Ok(Raw::Registers(vec![1, 0, 2, 0, 3, 0])));
    let two = Array::new(DataType::Int32, vec![Value::Int32(1), Value::Int32(2)], None).unwrap().into();
    assert_eq!(array.to_raw(&two, false).unwrap_err().to_string(), "BadOutOfRange: it has 3 elements, not 2");
}

fn numbers() -> impl Strategy<Value = Type> {
    prop::sample::select(vec![
        Type::Int16,
        Type::UInt16,
        Type::Int32,
        Type::UInt32,
        Type::Int64,
        Type::UInt64,
        Type::Float,
        Type::Double,
    ])
}

proptest! {
    /// Registers to value and back, in all orders, for all types and array lengths.
    #[test]
    fn what_is_read_and_written_is_the_same(
        kind in numbers(), order in prop::sample::select(ORDERS.to_vec()), count in 1_u16..5, seed in prop::collection::vec(any::<u16>(), 20)
    ) {
        let layout = Layout { count: (count > 1).then_some(count), ..layout(kind, order) };
        let registers = &seed[..layout.size() as usize];
        let value = layout.of_registers(registers).unwrap();
        prop_assert_eq!(value.data_type(), Some(layout.data_type()));
        prop_assert_eq!(layout.to_raw(&value, false), Ok(Raw::Registers(registers.to_vec())));
    }

    /// Value to registers and back.
    #[test]
    fn what_is_written_and_read_is_the_same(value in any::<i64>(), order in prop::sample::select(ORDERS.to_vec())) {
        for (kind, value) in [
            (Type::Int64, Value::Int64(value)),
            (Type::UInt32, Value::UInt32(value as u32)),
            (Type::Int16, Value::Int16(value as i16)),
            (Type::Bcd16, Value::UInt16((value as u16) % 10_000)),
            (Type::Bcd32, Value::UInt32((value as u32) % 100_000_000)),
        ] {
            let layout = layout(kind, order);
            let Raw::Registers(registers) = layout.to_raw(&value, false).unwrap() else { panic!("registers") };
            prop_assert_eq!(layout.of_registers(&registers).unwrap(), value);
        }
    }

    /// A scaled value that was read is written as the same registers.
    #[test]
    fn scaling_is_inverted(raw in any::<u16>(), kind in prop::sample::select(vec![Type::UInt16, Type::Int16]), scale in 0.001_f64..1000.0, offset in -1e6..1e6) {
        let layout = scaled(kind, scale, offset);
        let value = layout.of_registers(&[raw]).unwrap();
        prop_assert_eq!(layout.to_raw(&value, false), Ok(Raw::Registers(vec![raw])));
    }

    #[test]
    fn no_registers_and_no_value_break_it(registers in prop::collection::vec(any::<u16>(), 4), double in any::<f64>(), kind in numbers()) {
        for kind in [kind, Type::Bcd16, Type::Bcd32] {
            let _ = layout(kind, Order::Abcd).of_registers(&registers);
            let _ = scaled(kind, 0.1, 1.0).to_raw(&Value::Double(double), false);
        }
        let text = Layout { text: 8, ..layout(Type::String, Order::Badc) };
        prop_assert!(matches!(text.of_registers(&registers), Ok(Value::String(Some(_)))));
    }
}
