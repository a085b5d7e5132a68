package coalesce

import "time"

// An Entry is a value of a [Cache] together with what the cache knows of it, as
// [Cache.Entry] returns it.
type Entry[V any] struct {
	// Value is the zero value if State is Negative.
	Value V

	// Age is the time since the load that brought the value returned, or since
	// Set. It is 0 for a value that was loaded for this very call.
	Age time.Duration

	State EntryState
}

// An EntryState says by what right a [Cache] serves an entry.
type EntryState int

const (
	// Fresh is within its time to live, or was loaded for this caller.
	Fresh EntryState = iota

	// Stale is past its time to live and within CacheOptions.Stale: it is being
	// loaded in the background, or will be when the pause after a failed load
	// is over.
	Stale

	// StaleError is past its time to live and within CacheOptions.StaleIfError,
	// and is served because loading it has failed.
	StaleError

	// Negative is a key that has no value.
	Negative
)

// String returns the name of the constant.
func (s EntryState) String() string {
	switch s {
	case Fresh:
		return "Fresh"
	case Stale:
		return "Stale"
	case StaleError:
		return "StaleError"
	case Negative:
		return "Negative"
	}
	return "unknown"
}

const never time.Duration = 1<<63 - 1

// A record is a value as it was loaded. It is immutable, so that a hit reads it
// without a lock; a newer one takes its place by one atomic store. All times
// count from Cache.epoch.
type record[V any] struct {
	value  V
	err    error         // not nil if the key has no value
	loaded time.Duration // when the load returned
	took   time.Duration // how long it ran; 0 if that is not known
	expiry time.Duration // fresh before
	early  time.Duration // surely fresh and not to be refreshed before; at most expiry
}

func later(at, by time.Duration) time.Duration {
	if at > never-by {
		return never
	}
	return at + by
}
