//! The scripts, each sent by its hash and loaded where the server does not know it.
//!
//! Counters are Higress's: an integer with a time to live that begins with the first count.

use std::sync::OnceLock;

use redis::Script;

/// `{counter after, seconds left}`; counts one unless the counter is above the limit.
const TAKE: &str = r"
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current <= tonumber(ARGV[1]) then
  current = redis.call('INCR', KEYS[1])
  if current == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
end
return {current, redis.call('TTL', KEYS[1])}
";

/// `{counter, seconds left}`.
const READ: &str = r"
local current = redis.call('GET', KEYS[1])
if not current then return {0, tonumber(ARGV[1])} end
return {tonumber(current), redis.call('TTL', KEYS[1])}
";

/// Adds unless the counter is above the limit; a counter without an end gets one.
const CHARGE: &str = r"
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current <= tonumber(ARGV[1]) then
  local after = redis.call('INCRBY', KEYS[1], ARGV[3])
  if after == tonumber(ARGV[3]) or redis.call('TTL', KEYS[1]) < 0 then
    redis.call('EXPIRE', KEYS[1], ARGV[2])
  end
end
";

/// `{granted, counter, milliseconds left}`; adds only what fits.
const RESERVE: &str = r"
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current + tonumber(ARGV[3]) > tonumber(ARGV[1]) then
  return {0, current, redis.call('PTTL', KEYS[1])}
end
local after = redis.call('INCRBY', KEYS[1], ARGV[3])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return {1, after, redis.call('PTTL', KEYS[1])}
";

/// Corrects a counter whose window is still that of the reservation; never below 0.
const CORRECT: &str = r"
local left = redis.call('PTTL', KEYS[1])
if left <= 0 or left > tonumber(ARGV[2]) + 250 then return end
local after = redis.call('INCRBY', KEYS[1], ARGV[1])
if after < 0 then redis.call('INCRBY', KEYS[1], -after) end
";

/// All of them, hashed once.
pub(super) struct Scripts {
    pub(super) take: Script,
    pub(super) read: Script,
    pub(super) charge: Script,
    pub(super) reserve: Script,
    pub(super) correct: Script,
}

impl Scripts {
    pub(super) fn get() -> &'static Self {
        static SCRIPTS: OnceLock<Scripts> = OnceLock::new();
        SCRIPTS.get_or_init(|| Self {
            take: Script::new(TAKE),
            read: Script::new(READ),
            charge: Script::new(CHARGE),
            reserve: Script::new(RESERVE),
            correct: Script::new(CORRECT),
        })
    }
}
