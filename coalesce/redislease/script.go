package redislease

import "github.com/redis/rueidis"

// The value of a lease is the name of its holder, which is ownerLen bytes long,
// and its token in decimal. Redis has no other place in which the two would
// expire together with it.
//
// Numbers in Lua are floating-point: exact up to 2^53, which microseconds since
// 1970 reach in the year 2255. By itself Lua would write them as 1.7e+15.
//
// Publishing is a pcall, since a server that cannot publish (it is older, or the
// user may not) has released the lease nevertheless.
const (
	acquireText = `
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local t = redis.call('TIME')
local token = t[1] * 1000000 + t[2]
local last = redis.call('GET', KEYS[2])
if last and tonumber(last) >= token then token = tonumber(last) + 1 end
token = string.format('%.0f', token)
redis.call('SET', KEYS[2], token, 'PX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1] .. token, 'PX', ARGV[2])
return token`

	renewText = `
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])`

	releaseText = `
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.pcall('SPUBLISH', KEYS[2], '')
return 1`

	putText = `
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, ARGV[1] + 1) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return 1`

	// As a script it goes to the primary, also with a client that sends reads to
	// replicas: those would say that the key is free when it is not, or for long
	// that it is not when it is.
	leftText = `return redis.call('PTTL', KEYS[1])`
)

// Of the scripts that change something, those may be sent again whose second
// run changes and says the same. A cluster that fails over needs it: the client
// learns of the new primary by an error. To acquire fails at once, so that the
// caller can decide what to do without Redis; to release, since the second run
// would say that the lease was lost.
type scripts struct{ acquire, renew, release, put, left *rueidis.Lua }

func newScripts() scripts {
	return scripts{
		acquire: rueidis.NewLuaScript(acquireText),
		renew:   rueidis.NewLuaScriptRetryable(renewText),
		release: rueidis.NewLuaScript(releaseText),
		put:     rueidis.NewLuaScriptRetryable(putText),
		left:    rueidis.NewLuaScriptRetryable(leftText),
	}
}
