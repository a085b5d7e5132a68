package coalesce

// BatcherStats tells what a [Batcher] has done since its first use. Loads
// divided by Fetches is the number of queries that each one replaces.
type BatcherStats struct {
	// Loads is the number of keys that were asked for.
	Loads int64

	// Joined is the number of them that were queued or being fetched already.
	Joined int64

	// Fetches is the number of fetches that were begun, and Keys the sum of their
	// keys.
	Fetches, Keys int64

	// InFlight is the number of fetches that run now, and Queued the number of
	// keys that wait for one.
	InFlight, Queued int
}

// Stats returns a snapshot of the counters.
func (b *Batcher[K, V]) Stats() BatcherStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.InFlight, s.Queued = len(b.flying), b.queued.size
	return s
}
