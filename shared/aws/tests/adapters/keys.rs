//! What is kept of API keys: the same tests on moto and on Amazon's DynamoDB Local.

use aws_sdk_dynamodb::types::AttributeValue;
use ciab_aws::RandomIdentifiers;
use ciab_core::ids::Provider;
use ciab_core::key::{KeyDigest, KeyRecord, Limits, Scope};
use ciab_core::ports::{INVALID_NEXT_TOKEN, KeyMaker, Keys, PortError};
use jiff::Timestamp;

use crate::records::{TABLE, Table};
use crate::servers::Server;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn key(created_at: &str, expires_at: Option<&str>) -> KeyRecord {
    let created_at = time(created_at);
    let new = RandomIdentifiers.new_key(created_at).unwrap();
    KeyRecord {
        key_id: new.id,
        digest: KeyDigest::of(new.text.expose()),
        label: "ci".into(),
        scopes: [Scope::Read, Scope::Build].into(),
        limits: Limits::default(),
        created_at,
        expires_at: expires_at.map(time),
    }
}

async fn what_was_added_is_read_back_as_it_was(table: Table) {
    let plain = key("2026-03-25T14:30:00.123456789Z", None);
    let mut limited = key("2026-03-25T14:30:00Z", Some("2026-06-23T14:30:00.5Z"));
    limited.limits = Limits {
        providers: Some([Provider::Codex, Provider::Gemini].into()),
        regions: Some(["eu-west-1".parse().unwrap()].into()),
    };
    for key in [&plain, &limited] {
        table.records.add_key(key).await.unwrap();
        assert_eq!(table.records.key(&key.key_id).await.unwrap().as_ref(), Some(key));
    }
    assert_eq!(table.records.key(&key("2026-03-25T14:30:00Z", None).key_id).await.unwrap(), None);
}

async fn only_a_key_that_expires_is_given_to_the_time_to_live(table: Table) {
    for (expires_at, epoch) in [(None, None), (Some("2026-06-23T14:30:00.5Z"), Some("1782225000"))] {
        let key = key("2026-03-25T14:30:00Z", expires_at);
        table.records.add_key(&key).await.unwrap();
        let item = table
            .client
            .get_item()
            .table_name(TABLE)
            .key("pk", AttributeValue::S("KEYS".into()))
            .key("sk", AttributeValue::S(key.key_id.to_string()))
            .send()
            .await
            .unwrap()
            .item
            .unwrap();
        let given = item.get("expires_at_epoch").map(|value| value.as_n().unwrap().as_str());
        assert_eq!(given, epoch);
    }
}

async fn a_key_whose_answer_was_lost_is_added_again_and_another_of_its_id_is_refused(table: Table) {
    let first = key("2026-03-25T14:30:00Z", None);
    table.records.add_key(&first).await.unwrap();
    table.records.add_key(&first).await.unwrap();
    let other = KeyRecord { digest: KeyDigest::of("another"), ..first.clone() };
    let refused = table.records.add_key(&other).await.unwrap_err();
    assert!(matches!(&refused, PortError::Refused { code, .. } if code == "KeyIdTaken"), "{refused}");
    assert_eq!(table.records.key(&first.key_id).await.unwrap(), Some(first));
}

async fn keys_are_listed_newest_first_and_in_pages(table: Table) {
    let keys: Vec<KeyRecord> =
        (1..=5).map(|second| key(&format!("2026-03-25T14:30:0{second}Z"), None)).collect();
    for key in [3, 0, 4, 2, 1].map(|at| &keys[at]) {
        table.records.add_key(key).await.unwrap();
    }
    let (mut listed, mut next, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = table.records.keys(2, next.as_deref()).await.unwrap();
        listed.extend(page.items);
        pages += 1;
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let newest_first: Vec<KeyRecord> = keys.into_iter().rev().collect();
    assert_eq!((listed, pages), (newest_first, 3));
    let exact = table.records.keys(5, None).await.unwrap();
    assert_eq!((exact.items.len(), exact.next), (5, None));
    for forged in ["", "KEYS", "not base64!", "MDAwMDAwMDAwMDAwMDAwMDAwMDA0"] {
        let error = table.records.keys(2, Some(forged)).await.unwrap_err();
        assert!(matches!(&error, PortError::Refused { code, .. } if code == INVALID_NEXT_TOKEN), "{forged}");
    }
}

async fn a_key_is_removed_once(table: Table) {
    let (one, other) = (key("2026-03-25T14:30:00Z", None), key("2026-03-25T14:30:01Z", None));
    for key in [&one, &other] {
        table.records.add_key(key).await.unwrap();
    }
    assert!(table.records.remove_key(&one.key_id).await.unwrap());
    assert!(!table.records.remove_key(&one.key_id).await.unwrap());
    assert_eq!(table.records.key(&one.key_id).await.unwrap(), None);
    assert_eq!(table.records.keys(100, None).await.unwrap().items, [other]);
}

async fn each_pattern_costs_one_call(table: Table) {
    let key = key("2026-03-25T14:30:00Z", None);
    let calls = &table.calls;
    table.records.add_key(&key).await.unwrap();
    assert_eq!(calls.take(), ["PutItem"], "add");
    table.records.key(&key.key_id).await.unwrap();
    assert_eq!(calls.take(), ["GetItem"], "look up");
    table.records.keys(100, None).await.unwrap();
    assert_eq!(calls.take(), ["Query"], "list");
    table.records.remove_key(&key.key_id).await.unwrap();
    assert_eq!(calls.take(), ["DeleteItem"], "remove");
}

/// Each of the tests above once for each server.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod on_moto {
            $(#[tokio::test] async fn $test() { super::$test(super::Table::on(super::Server::moto()).await).await; })*
        }
        mod on_dynamodb_local {
            $(#[tokio::test] async fn $test() {
                super::$test(super::Table::on(super::Server::dynamodb_local()).await).await;
            })*
        }
    };
}

on_both! {
    what_was_added_is_read_back_as_it_was
    only_a_key_that_expires_is_given_to_the_time_to_live
    a_key_whose_answer_was_lost_is_added_again_and_another_of_its_id_is_refused
    keys_are_listed_newest_first_and_in_pages
    a_key_is_removed_once
    each_pattern_costs_one_call
}
