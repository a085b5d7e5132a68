package redislease

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/internal/hold"
)

// Options are the knobs of a Lease. The zero value of each field is its default.
type Options struct {
	// TTL is how long a holder that died keeps others from taking over. A living
	// one renews its lease three times as often. Longer than the longest pause
	// that should not cost the lease, and shorter than the others may wait; from
	// 100 ms to 24 h. 0 means 10 s.
	TTL time.Duration

	// Prefix is what all names in Redis begin with: leases with different
	// prefixes have nothing to do with each other. It contains no brace. Empty
	// means "evenkeel:lease:".
	Prefix string
}

const (
	minTTL = 100 * time.Millisecond
	maxTTL = 24 * time.Hour

	// fenceTTL is how long the last token of a key is remembered.
	fenceTTL = 24 * time.Hour

	// ownerLen is the length of the name of a holder, 128 random bits in text.
	ownerLen = 26
)

// A Lease keeps leases in Redis. It must be created by New.
//
// A Lease is safe for concurrent use by multiple goroutines.
type Lease struct {
	client  rueidis.Client
	ttl     time.Duration
	prefix  string
	scripts scripts
	waiting listeners
}

var _ coalesce.Lease = (*Lease)(nil)

// New returns a Lease that uses client, which stays the caller's to close. It
// does not ask the server. Returns an error if client is nil or an option is out
// of its range.
func New(client rueidis.Client, o Options) (*Lease, error) {
	if client == nil {
		return nil, errors.New("redislease: client is nil, want a rueidis.Client")
	}
	if o.TTL == 0 {
		o.TTL = 10 * time.Second
	}
	if o.TTL < minTTL || o.TTL > maxTTL {
		return nil, fmt.Errorf("redislease: Options.TTL is %v, want 0 (meaning 10s) or %v to %v", o.TTL, minTTL, maxTTL)
	}
	if o.Prefix == "" {
		o.Prefix = "evenkeel:lease:"
	}
	if strings.ContainsAny(o.Prefix, "{}") {
		return nil, fmt.Errorf("redislease: Options.Prefix is %q, want a text without braces", o.Prefix)
	}
	return &Lease{
		client: client, ttl: o.TTL, prefix: o.Prefix, scripts: newScripts(),
		waiting: listeners{client: client, byChannel: map[string]*listener{}},
	}, nil
}

// names are those of one key in Redis.
type names struct{ lease, fence, value, channel string }

// names hashes the key: 192 bits, so that nobody finds two keys with one value.
func (l *Lease) names(key string) names {
	sum := sha256.Sum256([]byte(key))
	tag := l.prefix + "{" + base64.RawURLEncoding.EncodeToString(sum[:24]) + "}"
	return names{lease: tag, fence: tag + ":token", value: tag + ":value", channel: tag + ":free"}
}

// Acquire makes the caller the holder of key, in one round trip. Returns
// coalesce.ErrHeld if there is another holder, the error of ctx when that ends
// first, and the error of the client if Redis does not answer as it should.
//
// After an error other than ErrHeld Redis may have granted the lease without
// our knowing. Then it is given back in the background, and if that fails it
// ends with its time to live.
func (l *Lease) Acquire(ctx context.Context, key string) (coalesce.Grant, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g := &grant{lease: l, names: l.names(key), owner: rand.Text()}
	sent := time.Now()
	text, err := l.scripts.acquire.Exec(ctx, l.client, []string{g.names.lease, g.names.fence},
		[]string{g.owner, millis(l.ttl), millis(fenceTTL)}).ToString()
	switch {
	case rueidis.IsRedisNil(err):
		return nil, coalesce.ErrHeld
	case err != nil:
		if _, answered := rueidis.IsRedisErr(err); !answered {
			go g.giveBack()
		}
		return nil, fmt.Errorf("redislease: acquire: %w", err)
	}
	token, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("redislease: acquire: token: %w", err)
	}
	g.token = coalesce.Token(token)
	g.hold = hold.Start(l.ttl, sent, g.renew, nil)
	return g, nil
}

// millis is a duration as Redis takes it.
func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
