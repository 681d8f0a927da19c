//! `ciab key create`, `list` and `revoke`: who may use the service, and for what.
//!
//! A key goes to stdout once, and nowhere else.

use serde_json::{Value, json};

use crate::args::{CreateKeyOptions, ListKeysOptions, RevokeKeyOptions};
use crate::client::{Client, Deletion};
use crate::document::{cell, inline, time_cell};
use crate::exit::{Exit, Failure};
use crate::output::{self, Printer};
use crate::wait::unless_interrupted;

/// A hundred thousand keys at the documented page size. A service that has more repeats itself.
const MOST_PAGES: u32 = 1000;

const COLUMNS: [(&str, u16); 7] = [
    ("KEY ID", 20),
    ("LABEL", 12),
    ("SCOPES", 11),
    ("PROVIDERS", 11),
    ("REGIONS", 10),
    ("CREATED", 19),
    ("EXPIRES", 0),
];

pub(crate) async fn create(
    client: &Client,
    printer: &mut Printer,
    options: &CreateKeyOptions,
) -> Result<Exit, Failure> {
    let hints = || vec!["it may have been made all the same; `ciab key list` tells".to_owned()];
    let created = async {
        let (answer, maybe_done_before) = client.create_key(body(options)).await;
        Ok((answer?, maybe_done_before))
    };
    let (document, maybe_done_before) = unless_interrupted(hints, created).await?;
    // In a table's place stands the key alone, so that it can be caught: KEY=$(ciab key create …).
    printer.result(&document, |document| format!("{}\n", cell(document, "key")))?;
    if maybe_done_before {
        printer.note("An earlier attempt got no answer; it may have made a key that nobody knows. `ciab key list` shows it.");
    }
    let (id, scopes) = (cell(&document, "key_id"), cell(&document, "scopes"));
    printer.note(&format!("Key {id}, scopes {scopes}, expires {}.", expiry(&document)));
    printer.hint("it is shown this once: keep it where your secrets are");
    printer.hint(&format!("`ciab key revoke {id}` revokes it"));
    Ok(Exit::Done)
}

fn body(options: &CreateKeyOptions) -> Value {
    let mut body = json!({"label": options.label, "scopes": options.scopes});
    if !options.providers.is_empty() {
        body["providers"] = json!(options.providers);
    }
    if !options.regions.is_empty() {
        body["regions"] = json!(options.regions);
    }
    if let Some(days) = options.expires_in {
        body["expires_in_days"] = json!(days);
    }
    body
}

pub(crate) async fn list(
    client: &Client,
    printer: &mut Printer,
    options: &ListKeysOptions,
) -> Result<Exit, Failure> {
    // Whoever wants all wants them in few requests.
    let limit = options.limit.or(options.all.then_some(100));
    let mut document = client.keys(limit, None).await?;
    if options.all {
        append_the_rest(client, limit, &mut document).await?;
    }
    printer.result(&document, key_table)?;
    if next_token(&document).is_some() {
        printer.hint("there are more keys; --all lists them all");
    }
    if keys(&document).is_empty() {
        printer.hint("there are no keys but the first admin key; `ciab key create` makes one");
    }
    Ok(Exit::Done)
}

async fn append_the_rest(client: &Client, limit: Option<u32>, document: &mut Value) -> Result<(), Failure> {
    for _ in 0..MOST_PAGES {
        let Some(token) = next_token(document) else { return Ok(()) };
        let mut page = client.keys(limit, Some(token)).await?;
        document["next_token"] = page["next_token"].take();
        if let (Some(Value::Array(keys)), Some(Value::Array(more))) =
            (document.get_mut("keys"), page.get_mut("keys"))
        {
            keys.append(more);
        }
    }
    Ok(())
}

pub(crate) async fn revoke(
    client: &Client,
    printer: &mut Printer,
    options: &RevokeKeyOptions,
) -> Result<Exit, Failure> {
    let key_id = &options.key_id;
    let hints = || vec![format!("it may be revoked all the same; `ciab key revoke {key_id}` makes sure")];
    let revoked = unless_interrupted(hints, async { Ok(client.revoke_key(key_id).await?) }).await?;
    if let Deletion::GoneAfterLostAnswer = revoked {
        printer.note("An earlier attempt got no answer; the key is not there any more.");
    }
    // The service answers with no document: this one is ours.
    printer.result(&json!({"key_id": key_id, "revoked": true}), |_| format!("Revoked {key_id}\n"))?;
    printer
        .hint("where it was used just now it may be taken for AuthorizerCacheSecs more, a minute by default");
    Ok(Exit::Done)
}

fn keys(document: &Value) -> &[Value] {
    document.get("keys").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn next_token(document: &Value) -> Option<String> {
    document.get("next_token").and_then(Value::as_str).map(str::to_owned)
}

fn key_table(document: &Value) -> String {
    let rows = keys(document).iter().map(|key| {
        vec![
            cell(key, "key_id"),
            cell(key, "label"),
            cell(key, "scopes"),
            limit(key, "providers"),
            limit(key, "regions"),
            time_cell(key, "created_at"),
            expiry(key),
        ]
    });
    output::table(&COLUMNS, rows)
}

fn limit(key: &Value, field: &str) -> String {
    match key.get(field) {
        None | Some(Value::Null) => "all".to_owned(),
        Some(limited) => inline(limited),
    }
}

fn expiry(key: &Value) -> String {
    match key.get("expires_at") {
        None | Some(Value::Null) => "never".to_owned(),
        Some(_) => time_cell(key, "expires_at"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_with_what_they_may_do() {
        let document = json!({"keys": [
            {
                "key_id": "019d2566fe4000000001", "label": "ci", "scopes": ["read", "build"],
                "providers": ["codex"], "regions": null, "created_at": "2026-03-25T14:30:00Z",
                "expires_at": "2026-06-23T14:30:00Z"
            },
            {
                "key_id": "019d2566fe4000000002", "label": "people", "scopes": ["admin"], "providers": null,
                "regions": null, "created_at": "2026-03-25T14:30:00Z", "expires_at": null
            },
        ], "next_token": null});
        let expected = "\
KEY ID                LABEL         SCOPES       PROVIDERS    REGIONS     CREATED              EXPIRES
019d2566fe4000000001  ci            read, build  codex        all         2026-03-25 14:30:00  2026-06-23 14:30:00
019d2566fe4000000002  people        admin        all          all         2026-03-25 14:30:00  never
";
        assert_eq!(key_table(&document), expected);
    }
}
