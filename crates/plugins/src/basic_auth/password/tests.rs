//! Hashes that openssl and libxcrypt have made, and what is none.

use super::PasswordHash;

const PASSWORDS: [&str; 4] = [
    "secret",
    "",
    "ключ",
    "a much longer password than sixteen bytes, and longer than sixty-four too, so that blocks repeat",
];

/// Each with its password.
const HASHES: &[(&str, &str)] = &[
    (PASSWORDS[0], r"$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1"),
    (PASSWORDS[0], r"$apr1$x$12YdXEY0/hH4rDNkmZupO0"),
    (
        PASSWORDS[0],
        r"$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi.",
    ),
    (
        PASSWORDS[0],
        r"$6$saltstring$AIsRs/Ee56G/tC8MEHhvReZTfx8u3rXXMl6eYrjCG9ibix19DxoMBLogdTET5Ukw9Sf7eZTITsuk0Ry5qulYz.",
    ),
    (
        PASSWORDS[0],
        r"$5$rounds=1400$anotherlongsalts$hA9phAhHgeqcKTycY/LRKamQM18d5P2uD0VRrWGWMX6",
    ),
    (
        PASSWORDS[0],
        r"$6$rounds=1000$ab$3tLFZOSDxcyiDWcYSrieU1uloXMcbPJQRTcotZNqEJiB1iizwjzbn2jECOCvw6wslPpiTPzli2jppqTUXUq9N0",
    ),
    (
        PASSWORDS[0],
        r"$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
    ),
    (
        PASSWORDS[0],
        r"$2y$05$CCCCCCCCCCCCCCCCCCCCC.pIKrLVkBX9/OvQMSygY1pWEVn72t6na",
    ),
    (
        PASSWORDS[0],
        r"$2a$04$....................../dCAsp4PpJoDgv6BeaLP6BKrXlBV1oi",
    ),
    (PASSWORDS[1], r"$1$abcdefgh$M55TzYaaccxVGbptZWaxX/"),
    (PASSWORDS[1], r"$apr1$x$tMwYqBfQwi3FYAr0aJc8M/"),
    (
        PASSWORDS[1],
        r"$5$rounds=1400$anotherlongsalts$7IcTVudmZDHdXM3GIn4KAxA5tvn.eciiARdqRBeqNs/",
    ),
    (
        PASSWORDS[1],
        r"$6$rounds=1000$ab$ibFMAI/Igw53aVaJxJu4wwQmU0jF8lxiKV6mtjRJmbxKnzQU8fIizULiJeSfGn7H54dbRhqwIBpklchs8nlWi.",
    ),
    (
        PASSWORDS[1],
        r"$2b$04$abcdefghijklmnopqrstuubyCG3zY1GIXMyxfivm.ClDiInHzxjiq",
    ),
    (
        PASSWORDS[1],
        r"$2y$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy",
    ),
    (
        PASSWORDS[1],
        r"$2a$04$......................w74bL5gU7LSJClZClCa.Pkz14aTv/XO",
    ),
    (PASSWORDS[2], r"$1$abcdefgh$OfY3Qm/L4ld94L0SL5s2Q1"),
    (PASSWORDS[2], r"$apr1$x$k9eJe..mPiJDZ6sOX173n0"),
    (
        PASSWORDS[2],
        r"$5$saltstring$Eu969lXktIbMCyfultgFP.tFQ4zr72PEzCNL3RBUayD",
    ),
    (
        PASSWORDS[2],
        r"$6$saltstring$cVW90k4pxIDUwLiPtwRBk1mFXPYcWrsZnsqpOH1OLxn5VUKsVFrvqxMjMM31.Es6fPzd/yR48oPkWTZLslekd/",
    ),
    (
        PASSWORDS[2],
        r"$5$rounds=1400$anotherlongsalts$Nr5ykQn2.gLJN.tgQw.0JkpqBgtF5skKNbEfrKSS3iC",
    ),
    (
        PASSWORDS[2],
        r"$6$rounds=1000$ab$JCO2rW6lHeTkdHVTL9vQZYjYf9EmhOaQUZ6TYd12JCY0IcMSqOZL/lL6Z6BkxyteYgLLcDb/GcQoMoun3Dhcx/",
    ),
    (
        PASSWORDS[2],
        r"$2b$04$abcdefghijklmnopqrstuuB3iVz8kcdk5IoudfiTGWM.0ml8XsZoW",
    ),
    (
        PASSWORDS[2],
        r"$2y$05$CCCCCCCCCCCCCCCCCCCCC.ihm0o1.rB9kIRR2uP6SwQ5X0nobIJAO",
    ),
    (
        PASSWORDS[2],
        r"$2a$04$......................QrvUNRJ4OWfPu1HSzwjtizAx8u6KhOq",
    ),
    (PASSWORDS[3], r"$1$abcdefgh$lP3trfJ7b985F4EBmfl8M."),
    (PASSWORDS[3], r"$apr1$x$/wzXx5SrmqwH0wqbdyHap/"),
    (
        PASSWORDS[3],
        r"$5$saltstring$HbidP99bjp6d.Kf33U2wEbj2sKY.cXJnGmme376Gv.2",
    ),
    (
        PASSWORDS[3],
        r"$6$saltstring$xJMW3w/tcJ5uEfFTTfLV.uSf4Iu9iIWw4P4E9vDw4JvQbguq7mDfkc4uprGbiA/aOhVxYzw5m0h9ECNmLnBfc/",
    ),
    (
        PASSWORDS[3],
        r"$5$rounds=1400$anotherlongsalts$tr0zdrib2zcZ.7WvgA7AY92AYfMaoyWLDWcRdxmeNmA",
    ),
    (
        PASSWORDS[3],
        r"$6$rounds=1000$ab$/fIkLYPYvSLOP4oWTSxVJCN5v0o3HOYtx9ZieNDs/fLOJQvuNPITF7yYB4XCe5asHLXQuMmHPlYDk0QirYPAm/",
    ),
    (
        PASSWORDS[3],
        r"$2b$04$abcdefghijklmnopqrstuuYyQ8fr/GgvaHqwvEp990Us4blhwvuMC",
    ),
    (
        PASSWORDS[3],
        r"$2y$05$CCCCCCCCCCCCCCCCCCCCC.ZerHlT9KmutAxZLtff.d7cCvRBj9pj.",
    ),
    (
        PASSWORDS[3],
        r"$2a$04$......................EnkFKhMMo15ZGV32L82IYjstYITU86e",
    ),
    (PASSWORDS[0], "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
    (PASSWORDS[1], "{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
    (PASSWORDS[0], "{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0"),
    (PASSWORDS[1], "{SSHA}spXRFxNal2PaKC59rnOlyn0+WxFzYWx0"),
    (PASSWORDS[2], "{PLAIN}ключ"),
    (PASSWORDS[1], "{PLAIN}"),
];

fn is_of(hash: &str, password: &str) -> bool {
    PasswordHash::parse(hash).unwrap().is_of(password.as_bytes())
}

#[test]
fn hashes_of_every_kind() {
    for (right, hash) in HASHES.iter().copied() {
        for password in PASSWORDS {
            assert_eq!(is_of(hash, password), password == right, "{password} for {hash}");
        }
        assert!(
            !is_of(hash, &format!(" {right}")) && !is_of(hash, &"x".repeat(512)),
            "{hash}"
        );
    }
}

#[test]
fn bcrypt_looks_at_72_bytes() {
    let hash = "$2b$04$abcdefghijklmnopqrstuum2G75IXDN/xsgbNa/hCiPSKyIHQd70S";
    let digits = "0123456789".repeat(8);
    assert!(is_of(hash, &digits) && is_of(hash, &digits[..72]) && !is_of(hash, &digits[..71]));
}

#[test]
fn what_is_no_hash_is_told_without_showing_it() {
    for text in [
        "",
        "secret",
        "abJnggxhB/yWI",
        "$2x$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
        "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
        "{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==",
        "$7$",
    ] {
        let told = PasswordHash::parse(text).unwrap_err();
        assert!(
            told.starts_with("is no hash of a kind that is known: bcrypt"),
            "{text}: {told}"
        );
    }
    for text in [
        "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I",
        "$1$abcdefgh",
        "$apr1$x$12YdXEY0/hH4rDNkmZupO0=",
        "$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi",
        "$6$rounds=x$ab$AIsRs",
        "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIr",
        "$2b$99$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
        "$2b$04$short",
        "$2b$04$ééééééééééé",
        "{SHA}5en6G6MezRroT3XKqkdPOmY",
        "{SSHA}!",
    ] {
        assert_eq!(
            PasswordHash::parse(text).unwrap_err(),
            "the hash is not whole",
            "{text}"
        );
    }
    let parsed = PasswordHash::parse("{PLAIN}secret").unwrap();
    assert_eq!(format!("{parsed:?}"), "PasswordHash");
    assert!(parsed.is_quick());
}
