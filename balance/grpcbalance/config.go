package grpcbalance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/serviceconfig"

	"github.com/evenkeel-go/evenkeel/balance"
)

// settings are what a config says. They can be compared.
type settings struct {
	choices  int
	decay    time.Duration
	zone     balance.Zone
	health   balance.Health
	failures codeSet
}

// config is a parsed load balancing config.
type config struct {
	serviceconfig.LoadBalancingConfig
	settings
}

// document is the JSON of a load balancing config.
type document struct {
	Choices      int           `json:"choices"`
	Decay        duration      `json:"decay"`
	FailureCodes *[]codes.Code `json:"failureCodes"`
	Zone         struct {
		Local   string  `json:"local"`
		Min     int     `json:"min"`
		Clients float64 `json:"clients"`
	} `json:"zone"`
	Health struct {
		Penalty      duration `json:"penalty"`
		Consecutive  int      `json:"consecutive"`
		SuccessRate  float64  `json:"successRate"`
		Interval     duration `json:"interval"`
		Volume       int      `json:"volume"`
		MaxEjected   float64  `json:"maxEjected"`
		Keep         int      `json:"keep"`
		BaseEjection duration `json:"baseEjection"`
		MaxEjection  duration `json:"maxEjection"`
		Panic        float64  `json:"panic"`
		SlowStart    duration `json:"slowStart"`
	} `json:"health"`
}

// duration is written as in the rest of a service config, "1.5s", or as in Go.
type duration time.Duration

func (d *duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("duration is %s, expected a string such as \"1.5s\"", b)
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("duration is %q, expected one such as \"1.5s\"", text)
	}
	*d = duration(parsed)
	return nil
}

// ParseConfig parses the JSON that follows the name of the policy in a service
// config. As gRPC asks, it ignores fields that it does not know, which a later version
// may have, but it logs them. It refuses anything else that is wrong.
func (b *builder) ParseConfig(text json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("grpcbalance: config of %s: %w", b.name, err)
	}
	s, err := b.settingsOf(&d)
	if err != nil {
		return nil, fmt.Errorf("grpcbalance: config of %s: %w", b.name, err)
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(new(document)); err != nil {
		grpclog.Component("evenkeel").Warningf("config of %s: %v; it is ignored", b.name, err)
	}
	return &config{settings: s}, nil
}

func (b *builder) settingsOf(d *document) (settings, error) {
	h := &d.Health
	s := settings{
		choices:  d.Choices,
		decay:    time.Duration(d.Decay),
		zone:     balance.Zone{Local: d.Zone.Local, Min: d.Zone.Min, Clients: d.Zone.Clients},
		failures: backendsFault,
		health: balance.Health{
			Penalty:      time.Duration(h.Penalty),
			Consecutive:  h.Consecutive,
			SuccessRate:  h.SuccessRate,
			Interval:     time.Duration(h.Interval),
			Volume:       h.Volume,
			MaxEjected:   h.MaxEjected,
			Keep:         h.Keep,
			BaseEjection: time.Duration(h.BaseEjection),
			MaxEjection:  time.Duration(h.MaxEjection),
			Panic:        h.Panic,
			SlowStart:    time.Duration(h.SlowStart),
		},
	}
	if s.health.SlowStart == 0 {
		s.health.SlowStart = -1
	}
	if s.choices != 0 && b.name != LeastRequest {
		return s, fmt.Errorf("choices is %d, expected none but in %s", s.choices, LeastRequest)
	}
	if s.decay != 0 && b.name != LeastLatency {
		return s, fmt.Errorf("decay is %v, expected none but in %s", s.decay, LeastLatency)
	}
	if d.FailureCodes != nil {
		s.failures = setOf(*d.FailureCodes...)
		if s.failures&setOf(codes.OK, codes.Canceled) != 0 {
			return s, errors.New("failureCodes has OK or CANCELLED, which are no failures of a backend")
		}
	}
	// The balancer knows the bounds of the rest.
	_, err := b.newBalancer(s, nil)
	return s, err
}
