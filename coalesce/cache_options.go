package coalesce

import (
	"fmt"
	"math"
	"time"
)

// CacheOptions sets the bounds of a [Cache] and how long it may serve what. The
// zero value of each field but Capacity is a default.
type CacheOptions[K comparable, V any] struct {
	// Capacity bounds the sum of the costs of all entries: their number, if
	// Cost is nil. It must be at least 1.
	Capacity int

	// Cost returns how much of Capacity an entry takes. Nil means 1 for each. If
	// it counts bytes, it should count those of the key and about 200 for the
	// entry too. A result below 1 counts as 1. An entry that costs more than
	// Capacity is returned to those who asked for it and not kept. With
	// NegativeTTL it is also called for keys without a value, with the zero V.
	Cost func(key K, value V) int

	// TTL is the time for which a loaded value is fresh. It counts from the
	// moment when the load returned. Zero means that values do not expire.
	TTL time.Duration

	// Jitter shortens each TTL at random, by up to this part of it: the TTL of
	// each entry is drawn from [TTL*(1-Jitter), TTL]. Entries that were loaded
	// together then do not expire together. It must be 0 to 1; 0.1 is usual.
	Jitter float64

	// Stale is the time after TTL for which the old value is still returned at
	// once, while one load in the background replaces it: the
	// stale-while-revalidate of RFC 5861. Then nobody waits for the reload of a
	// value that is in use. Zero means that such a caller waits.
	Stale time.Duration

	// StaleIfError is the time after TTL for which the old value is returned if
	// a load fails with anything but ErrNotFound: the stale-if-error of RFC
	// 5861. Zero means that the caller gets the error.
	StaleIfError time.Duration

	// NegativeTTL is the time for which it is remembered that a key has no
	// value: that its load failed with ErrNotFound. Such entries take room like
	// all others, so that a flood of keys which do not exist stays bounded. Zero
	// means that this is not remembered. Neither Jitter, Stale, StaleIfError
	// nor Beta apply.
	NegativeTTL time.Duration

	// Beta turns on early refreshes by chance (XFetch; see [Cache]) if it is
	// above 0. The value of the paper is 1; a larger one refreshes earlier.
	Beta float64

	// Timeout bounds one load: it is the deadline of the load's context. Zero
	// means no bound. With NewBatchCache use Batcher.Timeout.
	Timeout time.Duration

	// Trace, if not nil, is told what happens to the loads. With NewBatchCache
	// it must be nil.
	Trace *Trace[K]
}

func (o *CacheOptions[K, V]) validate() error {
	if o.Capacity < 1 {
		return fmt.Errorf("coalesce: CacheOptions.Capacity is %d, expected at least 1", o.Capacity)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"TTL", o.TTL},
		{"Stale", o.Stale},
		{"StaleIfError", o.StaleIfError},
		{"NegativeTTL", o.NegativeTTL},
		{"Timeout", o.Timeout},
	} {
		if d.value < 0 {
			return fmt.Errorf("coalesce: CacheOptions.%s is %v, expected 0 or more", d.field, d.value)
		}
	}
	if !(o.Jitter >= 0 && o.Jitter <= 1) { // so that NaN fails
		return fmt.Errorf("coalesce: CacheOptions.Jitter is %v, expected 0 to 1", o.Jitter)
	}
	if !(o.Beta >= 0) || math.IsInf(o.Beta, 1) {
		return fmt.Errorf("coalesce: CacheOptions.Beta is %v, expected 0 (for off) or a positive and finite number", o.Beta)
	}
	if o.TTL > 0 {
		return nil
	}
	for _, d := range []struct {
		field string
		value any
		set   bool
	}{
		{"Stale", o.Stale, o.Stale > 0},
		{"StaleIfError", o.StaleIfError, o.StaleIfError > 0},
		{"Jitter", o.Jitter, o.Jitter > 0},
		{"Beta", o.Beta, o.Beta > 0},
	} {
		if d.set {
			return fmt.Errorf("coalesce: CacheOptions.%s is %v with TTL 0, expected 0: values that do not expire are never stale", d.field, d.value)
		}
	}
	return nil
}
