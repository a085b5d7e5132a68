package sim

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// Config is what [Run] simulates. Only Phases must be set.
type Config struct {
	// Seed selects the random numbers. Configs that differ in nothing but the Strategy
	// see the same requests: the same arrivals, users, classes and sizes.
	Seed uint64

	// Phases are the load over time, one after the other. One phase is a steady load.
	// [Result].Recovery counts from the beginning of the last.
	Phases []Phase

	// Warm is the time at the start that is not measured. Zero means none.
	Warm time.Duration

	// Strategy is what protects the server. Zero is nothing.
	Strategy Strategy

	// Workers is how many requests the server works on at full speed. Zero means 32.
	Workers int

	// Service is the mean time that a request takes alone. Zero means 50 milliseconds.
	Service time.Duration

	// Shape is the distribution of these times. Zero is Lognormal.
	Shape Shape

	// Crowding is the price of more requests in progress than workers: with n in
	// progress, all together get done 1/(1 + Crowding*(n/Workers - 1)) of what they could.
	// It stands for context switches, caches, locks and garbage collection (the contention
	// of Gunther's Universal Scalability Law). Zero means 0.02: ten times as many as there
	// are workers cost 15 %.
	Crowding float64

	// Refusal is the time that a worker takes to refuse a request. Zero means a 200th
	// of Service.
	Refusal time.Duration

	// Classes are the classes of the requests, [shed.Background] first. Zero means shares
	// of 20, 30, 30 and 20 %.
	Classes [classes]Class

	// Users is the number of users. Each request is of one of them, at random. Zero
	// means 5000.
	Users int

	// Timeout is how long a client waits for the answer of an attempt. Zero means one
	// second.
	Timeout time.Duration

	// Attempts is how often a client tries in all. It tries again after a refusal and
	// after a timeout. Zero means 3.
	Attempts int

	// Backoff bounds the pause before the second attempt, which is drawn from zero to
	// it. The bound doubles with each further attempt. Zero means 100 milliseconds.
	Backoff time.Duration
}

// Phase is a time of constant load.
type Phase struct {
	// For is how long it lasts.
	For time.Duration

	// Load is the rate of new requests, retries not counted, relative to what the
	// server can do. They arrive as a Poisson process.
	Load float64
}

// Class is the requests of one class.
type Class struct {
	// Share is the part of all requests. Shares are relative to their sum.
	Share float64

	// Service is the mean time that a request of this class takes. Zero means
	// Config.Service.
	Service time.Duration
}

// Shape is a distribution of service times. Nothing takes more than ten times the
// mean.
type Shape uint8

const (
	// Lognormal is what page renderings and database queries look like. Its coefficient
	// of variation is 1.
	Lognormal Shape = iota

	// Exponential is that of queueing theory's closed forms.
	Exponential
)

// String returns "lognormal" or "exponential".
func (s Shape) String() string {
	if s == Exponential {
		return "exponential"
	}
	return "lognormal"
}

const (
	classes = len(shed.Counts{})

	// longest is how many times the mean the longest service takes.
	longest = 10

	// farAway bounds times, so that no sum of them overflows.
	farAway = 1000 * time.Hour
)

func (c Config) withDefaults() Config {
	set(&c.Workers, 32)
	set(&c.Service, 50*time.Millisecond)
	set(&c.Crowding, 0.02)
	set(&c.Refusal, c.Service/200)
	set(&c.Classes, [classes]Class{{Share: 0.2}, {Share: 0.3}, {Share: 0.3}, {Share: 0.2}})
	for i := range c.Classes {
		set(&c.Classes[i].Service, c.Service)
	}
	set(&c.Users, 5000)
	set(&c.Timeout, time.Second)
	set(&c.Attempts, 3)
	set(&c.Backoff, 100*time.Millisecond)
	return c
}

// set gives a field that is zero its default.
func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// most bounds counts.
const most = 1_000_000

// validate checks a config with its defaults.
func (c *Config) validate() error {
	if err := c.validatePhases(); err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"Workers", c.Workers}, {"Users", c.Users}, {"Attempts", c.Attempts}} {
		if f.value < 0 || f.value > most {
			return fmt.Errorf("sim: %s is %d, expected 0 to %d", f.name, f.value, most)
		}
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"Warm", c.Warm},
		{"Service", c.Service},
		{"Refusal", c.Refusal},
		{"Timeout", c.Timeout},
		{"Backoff", c.Backoff},
	} {
		if f.value < 0 || f.value > farAway {
			return fmt.Errorf("sim: %s is %v, expected 0 to %v", f.name, f.value, farAway)
		}
	}
	switch {
	case c.Shape > Exponential:
		return fmt.Errorf("sim: Shape is %d, expected Lognormal or Exponential", c.Shape)
	case !(c.Crowding >= 0) || math.IsInf(c.Crowding, 1):
		return fmt.Errorf("sim: Crowding is %v, expected 0 or more and finite", c.Crowding)
	case c.Warm >= c.length():
		return fmt.Errorf("sim: Warm is %v, expected less than that of all Phases, %v", c.Warm, c.length())
	}
	sum := 0.0
	for i, class := range c.Classes {
		if !(class.Share >= 0) || math.IsInf(class.Share, 1) {
			return fmt.Errorf("sim: Classes[%d].Share is %v, expected 0 or more and finite", i, class.Share)
		}
		if class.Service < 0 || class.Service > farAway {
			return fmt.Errorf("sim: Classes[%d].Service is %v, expected 0 to %v", i, class.Service, farAway)
		}
		sum += class.Share
	}
	if !(sum > 0) || math.IsInf(sum, 1) {
		return fmt.Errorf("sim: Classes have shares of %v in all, expected more than 0 and finite", sum)
	}
	return c.Strategy.validate()
}

func (c *Config) validatePhases() error {
	if len(c.Phases) == 0 {
		return errors.New("sim: Phases has length 0, expected 1 or more")
	}
	for i, p := range c.Phases {
		if p.For <= 0 || p.For > farAway {
			return fmt.Errorf("sim: Phases[%d].For is %v, expected more than 0 and up to %v", i, p.For, farAway)
		}
		if !(p.Load > 0) || math.IsInf(p.Load, 1) {
			return fmt.Errorf("sim: Phases[%d].Load is %v, expected more than 0 and finite", i, p.Load)
		}
	}
	if c.length() > farAway {
		return fmt.Errorf("sim: Phases take %v in all, expected up to %v", c.length(), farAway)
	}
	return nil
}

// length is how long all phases take.
func (c *Config) length() time.Duration {
	sum := time.Duration(0)
	for _, p := range c.Phases {
		sum = min(sum+p.For, 2*farAway)
	}
	return sum
}

// capacity is how many requests the server can work on in a second.
func (c *Config) capacity() float64 {
	shares, work := 0.0, 0.0
	for _, class := range c.Classes {
		shares += class.Share
		work += class.Share * class.Service.Seconds()
	}
	return float64(c.Workers) * shares / work
}
