package redislease

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// Put stores the value of key for ttl, which is at least a millisecond, if key
// is held by the grant with this token; all in one step. Otherwise nothing
// changes, and the error is coalesce.ErrFenced: the grant was released or lost,
// even if nobody has succeeded it. One round trip; while Redis cannot be reached,
// Put tries again for up to Options.TTL, after which there is no lease to write by.
func (l *Lease) Put(ctx context.Context, key string, token coalesce.Token, value []byte, ttl time.Duration) error {
	if ttl < time.Millisecond {
		return fmt.Errorf("redislease: put: ttl is %v, want %v or more", ttl, time.Millisecond)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	n := l.names(key)
	// It is tried again for as long as the lease may be ours.
	ctx, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	stored, err := l.scripts.put.Exec(ctx, l.client, []string{n.lease, n.value},
		[]string{strconv.Itoa(ownerLen), strconv.FormatUint(uint64(token), 10), rueidis.BinaryString(value), millis(ttl)}).AsInt64()
	switch {
	case err != nil:
		return fmt.Errorf("redislease: put: %w", err)
	case stored == 0:
		return coalesce.ErrFenced
	}
	return nil
}

// Get returns the value that was last stored for key and has not expired, and
// whether there is one. One round trip, to the primary.
func (l *Lease) Get(ctx context.Context, key string) (value []byte, found bool, err error) {
	// Without arguments GETEX is a GET that no client sends to a replica. One
	// that lags behind would make a new holder do again what has been done.
	value, err = l.client.Do(ctx, l.client.B().Getex().Key(l.names(key).value).Build()).AsBytes()
	switch {
	case rueidis.IsRedisNil(err):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("redislease: get: %w", err)
	}
	return value, true, nil
}
