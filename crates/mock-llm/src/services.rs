//! The two services that the first document's agent uses, with its data: Seniverse's weather and AviationStack's
//! flights. Enough of each to be called as the real ones are; the same call always gets the same answer.

use http::StatusCode;
use serde_json::{Value, json};

use crate::reply::Reply;

/// A city with a weather of its own.
struct City {
    names: [&'static str; 2],
    id: &'static str,
    path: &'static str,
    celsius: i32,
    update: &'static str,
}

/// The document's two, and one more.
static CITIES: &[City] = &[
    City {
        names: ["北京", "beijing"],
        id: "WX4FBXXFKE4F",
        path: "北京,北京,中国",
        celsius: 24,
        update: "2024-09-13T09:57:56+08:00",
    },
    City {
        names: ["乌鲁木齐", "urumqi"],
        id: "TZY33C4YJBP3",
        path: "乌鲁木齐,乌鲁木齐,新疆,中国",
        celsius: 13,
        update: "2024-09-13T09:42:12+08:00",
    },
    City {
        names: ["上海", "shanghai"],
        id: "WTW3SJ5ZBJUY",
        path: "上海,上海,中国",
        celsius: 28,
        update: "2024-09-13T09:50:00+08:00",
    },
];

/// The answer to one of the services' paths; `None` for any other.
pub(crate) fn answer(path: &str, query: &str) -> Option<Reply> {
    match path {
        "/v3/weather/now.json" => Some(weather(query)),
        "/v1/flights" => Some(flights(query)),
        _ => None,
    }
}

/// A value of the query.
fn value(query: &str, name: &str) -> Option<String> {
    let pair = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let spaced = pair.replace('+', " ");
    let plain = percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy();
    Some(plain.into_owned()).filter(|text| !text.is_empty())
}

fn weather(query: &str) -> Reply {
    let fault =
        |status, text: &str, code: &str| Reply::json(status, &json!({"status": text, "status_code": code}));
    if value(query, "key").is_none() {
        return fault(StatusCode::FORBIDDEN, "The API key is invalid.", "AP010003");
    }
    let asked = value(query, "location").unwrap_or_default().to_lowercase();
    let Some(city) = CITIES.iter().find(|city| city.names.contains(&asked.as_str())) else {
        return fault(
            StatusCode::NOT_FOUND,
            "The location can not be found.",
            "AP010010",
        );
    };
    let temperature = match value(query, "unit").as_deref() {
        Some("f") => city.celsius * 9 / 5 + 32,
        _ => city.celsius,
    };
    let [name, _] = city.names;
    Reply::json(
        StatusCode::OK,
        &json!({"results": [{
            "location": {
                "id": city.id, "name": name, "country": "CN", "path": city.path,
                "timezone": "Asia/Shanghai", "timezone_offset": "+08:00"
            },
            "now": {"text": "晴", "code": "0", "temperature": temperature.to_string()},
            "last_update": city.update
        }]}),
    )
}

fn flights(query: &str) -> Reply {
    if value(query, "access_key").is_none() {
        let error = json!({"error": {"code": "missing_access_key", "message": "You have not supplied an API Access Key."}});
        return Reply::json(StatusCode::UNAUTHORIZED, &error);
    }
    let wanted = |name: &str| value(query, name).unwrap_or_default().to_uppercase();
    let is_known = ["SHA", "PVG"].contains(&wanted("dep_iata").as_str())
        && wanted("arr_iata") == "URC"
        && matches!(wanted("flight_status").as_str(), "" | "SCHEDULED");
    let data: Vec<Value> = is_known.then(flight).into_iter().collect();
    let count = data.len();
    let pages = json!({"limit": 100, "offset": 0, "count": count, "total": count});
    Reply::json(StatusCode::OK, &json!({"pagination": pages, "data": data}))
}

/// The document's flight.
fn flight() -> Value {
    let end = |airport: &str, iata: &str, at: &str, delay: Value| {
        json!({
            "airport": airport, "timezone": "Asia/Shanghai", "iata": iata, "delay": delay,
            "scheduled": at, "estimated": at, "actual": null
        })
    };
    json!({
        "flight_date": "2024-09-13",
        "flight_status": "scheduled",
        "departure": end("Shanghai Hongqiao International", "SHA", "2024-09-13T09:20:00+00:00", json!(19)),
        "arrival": end("Urumqi", "URC", "2024-09-13T14:40:00+00:00", Value::Null),
        "airline": {"name": "Juneyao Airlines", "iata": "HO", "icao": "DKH"},
        "flight": {"number": "5594", "iata": "HO5594", "icao": "DKH5594"}
    })
}
