use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn conn() -> impl Strategy<Value = Conn> {
    let address = any::<([u8; 16], u16)>().prop_map(|(ip, port)| (ip, port).into());
    (any::<(u64, u64, u64, u16, u32, u32, u8)>(), address).prop_map(
        |((id, accepted_ms, active_ms, listener, requests, queued_ms, flags), peer): (
            _,
            std::net::SocketAddr,
        )| {
            Conn {
                id,
                accepted_ms,
                active_ms,
                peer: peer.into(),
                listener,
                requests,
                queued_ms,
                flags,
            }
        },
    )
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 2000..2900)]
}

fn to_worker() -> impl Strategy<Value = ToWorker> {
    let offer =
        (any::<u64>(), conn(), bytes()).prop_map(|(seq, conn, bytes)| Offer { seq, conn, bytes });
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(worker, workers)| ToWorker::Start { worker, workers }),
        vec(offer, 0..=MAX_DESCRIPTORS).prop_map(ToWorker::Offers),
        Just(ToWorker::Introduced),
        Just(ToWorker::Reopen),
        Just(ToWorker::Drain),
        Just(ToWorker::Stop),
    ]
}

fn to_master() -> impl Strategy<Value = ToMaster> {
    let returned = (conn(), bytes()).prop_map(|(conn, bytes)| Returned { conn, bytes });
    prop_oneof![
        Just(ToMaster::Ready),
        vec(returned, 0..=MAX_DESCRIPTORS).prop_map(ToMaster::Return),
        any::<u16>().prop_map(|worker| ToMaster::Introduce { worker }),
    ]
}

fn encoded<M: Message>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out).unwrap();
    out
}

/// Round trip; every cut and every surplus octet is refused.
fn check_whole<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> Result<(), TestCaseError> {
    let mut wire = encoded(message);
    prop_assert_eq!(&M::decode(&wire).unwrap(), message);
    prop_assert_eq!(M::stated_descriptors(&wire), message.descriptors());
    let step = (wire.len() / 64).max(1);
    for cut in (0..wire.len()).step_by(step).chain([wire.len() - 1]) {
        prop_assert_eq!(M::decode(&wire[..cut]), Err(MessageError::Cut));
    }
    wire.push(0);
    prop_assert!(matches!(
        M::decode(&wire),
        Err(MessageError::Surplus | MessageError::TooLong)
    ));
    Ok(())
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_the_master_says_arrives(message in to_worker()) {
        check_whole(&message)?;
    }

    #[test]
    fn what_a_worker_says_arrives(message in to_master()) {
        check_whole(&message)?;
    }

    #[test]
    fn arbitrary_octets_are_read_or_refused(octets in vec(any::<u8>(), 0..600), kind in 0u8..70, count in 0u8..40) {
        let mut near_miss = vec![VERSION, kind, count];
        near_miss.extend_from_slice(&octets);
        for octets in [octets, near_miss] {
            if let Ok(message) = ToWorker::decode(&octets) {
                prop_assert_eq!(encoded(&message), octets.clone());
            }
            if let Ok(message) = ToMaster::decode(&octets) {
                prop_assert_eq!(encoded(&message), octets);
            }
        }
    }
}

fn returned(length: usize) -> Returned {
    let conn = Conn::accepted("192.0.2.1:1".parse().unwrap(), 0, 0);
    Returned {
        conn,
        bytes: vec![b'x'; length],
    }
}

#[test]
fn literal_messages() {
    assert_eq!(
        encoded(&ToWorker::Start {
            worker: 1,
            workers: 0x0203
        }),
        [2, 1, 2, 1, 0, 3, 2]
    );
    assert_eq!(encoded(&ToWorker::Offers(Vec::new())), [2, 2, 0]);
    assert_eq!(encoded(&ToWorker::Stop), [2, 5, 0]);
    assert_eq!(encoded(&ToMaster::Ready), [2, 64, 0]);
    let table: [(&[u8], MessageError); 7] = [
        (&[], MessageError::Cut),
        (&[2, 64], MessageError::Cut),
        (&[3, 64, 0], MessageError::UnknownVersion(3)),
        (&[2, 1, 0], MessageError::UnknownType(1)),
        (&[2, 64, 1], MessageError::Descriptors { stated: 1, due: 0 }),
        (&[2, 64, 0, 0], MessageError::Surplus),
        (&[2, 65, 33], MessageError::TooLong),
    ];
    for (octets, error) in table {
        assert_eq!(ToMaster::decode(octets), Err(error), "{octets:?}");
    }
}

#[test]
fn limits_hold_when_encoding_and_leave_the_buffer_alone() {
    let mut out = vec![9];
    for message in [
        ToMaster::Return(vec![returned(MAX_BYTES + 1)]),
        ToMaster::Return(vec![returned(MAX_BYTES); 6]),
        ToMaster::Return(vec![returned(0); MAX_DESCRIPTORS + 1]),
        ToMaster::Return(vec![returned(0); 300]),
    ] {
        assert_eq!(message.encode(&mut out), Err(MessageError::TooLong));
        assert_eq!(out, [9]);
    }
    let full = ToMaster::Return(vec![returned(MAX_BYTES); 5]);
    let length: usize = 5 * returned(MAX_BYTES).encoded_length() + HEADER;
    assert_eq!(encoded(&full).len(), length);
    assert_eq!(ToMaster::decode(&encoded(&full)).unwrap(), full);
}
