package grpcbalance

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/grpc/experimental/balancer/weight"
	"google.golang.org/grpc/resolver"

	"github.com/evenkeel-go/evenkeel/balance"
)

type (
	weightKey struct{}
	zoneKey   struct{}
)

// SetWeight returns a copy of the endpoint with a weight, for resolvers: it gets so
// much of the RPCs, relative to the others. 0 means 1. An endpoint without it has the
// weight that gRPC's xDS has put there (package experimental/balancer/weight), or 1.
// A weight that is negative or not finite makes the channel refuse the whole update.
func SetWeight(e resolver.Endpoint, w float64) resolver.Endpoint {
	e.Attributes = e.Attributes.WithValue(weightKey{}, w)
	return e
}

// SetZone returns a copy of the endpoint with the zone that it is in, for resolvers.
// The caller's own zone is in the service config, see the package comment.
func SetZone(e resolver.Endpoint, zone string) resolver.Endpoint {
	e.Attributes = e.Attributes.WithValue(zoneKey{}, zone)
	return e
}

func weightOf(e resolver.Endpoint) float64 {
	if w, ok := e.Attributes.Value(weightKey{}).(float64); ok {
		return w
	}
	return float64(weight.FromEndpoint(e).Weight)
}

func zoneOf(e resolver.Endpoint) string {
	zone, _ := e.Attributes.Value(zoneKey{}).(string)
	return zone
}

// escape keeps addresses apart that hold the separator, as paths of sockets may.
var escape = strings.NewReplacer("%", "%25", ",", "%2C")

// idOf names an endpoint by the set of its addresses, which is what it is to gRPC
// too: neither their order nor any attribute matters.
func idOf(e resolver.Endpoint) string {
	if len(e.Addresses) == 1 && e.Addresses[0].Addr != "" {
		return escape.Replace(e.Addresses[0].Addr)
	}
	addresses := make([]string, len(e.Addresses))
	for i, a := range e.Addresses {
		addresses[i] = escape.Replace(a.Addr)
	}
	slices.Sort(addresses)
	if id := strings.Join(addresses, ","); id != "" {
		return id
	}
	return "%" // no other endpoint has that name
}

// checkWeights refuses what the balancer would.
func checkWeights(endpoints []resolver.Endpoint) error {
	for _, e := range endpoints {
		if w := weightOf(e); !(w >= 0) || math.IsInf(w, 1) {
			return fmt.Errorf("grpcbalance: %w %q: weight is %v, expected 0 (for 1) or a positive and finite number",
				balance.ErrBadBackend, idOf(e), w)
		}
	}
	return nil
}
