package outbox

import (
	"fmt"
	"log/slog"
	"time"
)

// Options are the knobs of an Outbox. The zero value of each field is its
// default.
type Options struct {
	// Batch is how many messages are read, published and acknowledged
	// together. A crash repeats at most one batch. 0 means 100.
	Batch int
	// BatchBytes ends a batch early when its payloads reach this many bytes.
	// A larger message travels alone. 0 means 1 MiB.
	BatchBytes int

	// PollMin and PollMax bound the time between two looks at an empty
	// outbox. It starts at PollMin after each message and doubles up to
	// PollMax, with jitter. PollMax is how late a message of another process,
	// a delayed message or a retry may be noticed. 0 means 10 ms and 1 s.
	PollMin, PollMax time.Duration

	// Lease is how long a drainer that died keeps others from taking over. A
	// living one renews it three times as often, also while it publishes or is
	// idle: one small write each. At least 10 ms; 0 means 10 s.
	Lease time.Duration

	// RetryBase and RetryMax set the wait after a failure: after attempt n it
	// is random between 0 and RetryBase*2^(n-1), and never above RetryMax
	// ("full jitter", see
	// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
	// 0 means 1 s and 10 min.
	RetryBase, RetryMax time.Duration
	// MaxAttempts is after how many failures a message is dead. 0 means 100:
	// with the other defaults about eight hours, so that a destination may be
	// down for a night. Negative means never: the message holds up its key
	// until it is delivered.
	MaxAttempts int

	// Logger is told about failed attempts and retried database errors
	// (warning), dead messages and panics (error), and who drains (info). Nil
	// is silent.
	Logger *slog.Logger
}

// withDefaults returns o with its zero fields filled in.
func (o Options) withDefaults() (Options, error) {
	for _, f := range [...]struct {
		name string
		n    *int
		def  int
	}{{"Batch", &o.Batch, 100}, {"BatchBytes", &o.BatchBytes, 1 << 20}} {
		if *f.n < 0 {
			return o, fmt.Errorf("%w: Options.%s is %d, want 0 (meaning %d) or more", ErrInvalid, f.name, *f.n, f.def)
		}
		if *f.n == 0 {
			*f.n = f.def
		}
	}
	for _, f := range [...]struct {
		name string
		d    *time.Duration
		def  time.Duration
	}{
		{"PollMin", &o.PollMin, 10 * time.Millisecond},
		{"PollMax", &o.PollMax, max(time.Second, o.PollMin)},
		{"Lease", &o.Lease, 10 * time.Second},
		{"RetryBase", &o.RetryBase, time.Second},
		{"RetryMax", &o.RetryMax, max(10*time.Minute, o.RetryBase)},
	} {
		if *f.d < 0 {
			return o, fmt.Errorf("%w: Options.%s is %v, want 0 (meaning %v) or more", ErrInvalid, f.name, *f.d, f.def)
		}
		if *f.d == 0 {
			*f.d = f.def
		}
	}
	if o.PollMin > o.PollMax {
		return o, fmt.Errorf("%w: Options.PollMin is %v, want at most PollMax, which is %v", ErrInvalid, o.PollMin, o.PollMax)
	}
	if o.Lease < minLease {
		return o, fmt.Errorf("%w: Options.Lease is %v, want at least %v", ErrInvalid, o.Lease, minLease)
	}
	if o.RetryBase > o.RetryMax {
		return o, fmt.Errorf("%w: Options.RetryBase is %v, want at most RetryMax, which is %v", ErrInvalid, o.RetryBase, o.RetryMax)
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = 100
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

const minLease = 10 * time.Millisecond
