package balance

import (
	"context"
	"time"
)

// Prober asks a backend for its load. It is called by several goroutines.
type Prober interface {
	Probe(ctx context.Context, id string) (Load, error)
}

// PrequalOptions are the knobs of [Prequal].
type PrequalOptions struct {
	Probes  float64       // probes a pick; 0 means 3
	Pool    int           // probes kept; 0 means 16
	MaxAge  time.Duration // of a probe; 0 means that it follows the latency of the backends
	Hot     float64       // quantile of requests in flight above which a backend is hot; 0 means 0.6; negative: RIF only
	Timeout time.Duration // of a probe; 0 means a second

	// Go starts a probe. Nil means a goroutine of its own.
	Go func(probe func())
}

// Prequal returns the strategy that probes backends for their load ahead of need.
func Prequal(p Prober, o PrequalOptions) Strategy { return prequalStrategy{p, o} }

type prequalStrategy struct {
	prober  Prober
	options PrequalOptions
}

func (s prequalStrategy) configure(c *chooser, _ *fleet) error {
	c.kind, c.choices = leastRequest, defaultChoices // to be written
	return nil
}
