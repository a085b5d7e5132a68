package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
)

// Dist is the distribution of the work that a request needs. Its mean is 1, the time
// that a server of speed 1 takes for an average request alone. The zero Dist is
// [Exponential]. A Dist is immutable.
type Dist struct {
	draw func(r *rand.Rand) float64
	err  error // of the arguments, for Run
}

// Exponential returns the distribution of queueing theory's closed forms, with a
// squared coefficient of variation of 1.
func Exponential() Dist {
	return Dist{draw: (*rand.Rand).ExpFloat64}
}

// Constant returns the distribution of requests that are all alike.
func Constant() Dist {
	return Dist{draw: func(*rand.Rand) float64 { return 1 }}
}

// Hyperexponential returns a mix of two exponential distributions, of short and of
// long requests, that do half of the work each. variation is the square of its
// coefficient of variation, above 1: with 10 about one request in twenty-three is
// long, and as long as eleven average ones.
func Hyperexponential(variation float64) Dist {
	if !(variation > 1) || math.IsInf(variation, 1) {
		return Dist{err: fmt.Errorf("sim: Hyperexponential's variation is %v, expected more than 1 and finite", variation)}
	}
	// Balanced means, so that p/rate is 1/2 for both; see Tijms, A First Course in
	// Stochastic Models (2003), appendix B.
	short := (1 + math.Sqrt((variation-1)/(variation+1))) / 2
	return Dist{draw: func(r *rand.Rand) float64 {
		p := short
		if r.Float64() >= short {
			p = 1 - short
		}
		return r.ExpFloat64() / (2 * p)
	}}
}

// Lognormal returns the distribution whose logarithm is normal: what page renderings
// and database queries look like. variation is the square of its coefficient of
// variation, above 0.
func Lognormal(variation float64) Dist {
	if !(variation > 0) || math.IsInf(variation, 1) {
		return Dist{err: fmt.Errorf("sim: Lognormal's variation is %v, expected more than 0 and finite", variation)}
	}
	square := math.Log1p(variation)
	sigma := math.Sqrt(square)
	return Dist{draw: func(r *rand.Rand) float64 { return math.Exp(sigma*r.NormFloat64() - square/2) }}
}

// Pareto returns the distribution with a tail that falls as a power: a request that
// is x times as long is x^shape times as rare, up to one that is ratio times as long
// as the shortest. Shape is above 0 (1.1 to 1.5 are usual for files and for CPU time)
// and ratio above 1.
func Pareto(shape, ratio float64) Dist {
	if !(shape > 0) || math.IsInf(shape, 1) {
		return Dist{err: fmt.Errorf("sim: Pareto's shape is %v, expected more than 0 and finite", shape)}
	}
	if !(ratio > 1) || math.IsInf(ratio, 1) {
		return Dist{err: fmt.Errorf("sim: Pareto's ratio is %v, expected more than 1 and finite", ratio)}
	}
	tail := math.Pow(ratio, -shape)
	mean := shape / (1 - tail) // of the shortest being 1
	if shape == 1 {
		mean *= math.Log(ratio)
	} else {
		mean *= (1 - math.Pow(ratio, 1-shape)) / (shape - 1)
	}
	return Dist{draw: func(r *rand.Rand) float64 {
		return math.Pow(1-r.Float64()*(1-tail), -1/shape) / mean
	}}
}

// Custom returns the distribution of what draw returns: positive and finite numbers
// of mean 1, drawn from r and from nothing else, so that a run can be repeated.
func Custom(draw func(r *rand.Rand) float64) Dist {
	if draw == nil {
		return Dist{err: errors.New("sim: Custom's function is nil, expected one that draws")}
	}
	return Dist{draw: draw}
}
