package httpbalance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/balance"
)

// SRVLookup finds the SRV records of a name. A [net.Resolver] does.
type SRVLookup interface {
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
}

// SRVOptions are the knobs of [NewSRV].
type SRVOptions struct {
	// Lookup asks the name service. Nil means [net.DefaultResolver].
	Lookup SRVLookup
}

// SRV is a [Resolver]: each SRV record (RFC 2782) of a name is a backend, with host,
// port and weight. It is immutable and safe for concurrent use.
//
// Only the records of the best priority, which has the lowest number, are backends;
// the others are for the name service to bring forward, by removing the better ones.
// (That a backend does not answer is what the balancer's health checks are for, and
// with three or more backends those go further than a list of spares.) The hosts are
// names, which the base transport looks up when it connects; they are what a TLS
// certificate is compared with.
type SRV struct {
	target *url.URL
	lookup SRVLookup
}

// NewSRV returns a resolver of the SRV records of the name in target, such as
// "http://_http._tcp.users.internal/v1". The backends have its scheme and path.
//
// Returns an error that names the value and what was expected if target is not such a
// URL, or has a port: that comes with the records.
func NewSRV(target string, o SRVOptions) (*SRV, error) {
	u, err := parseTarget(target)
	if err == nil && u.Port() != "" {
		err = fmt.Errorf("the port is %s, expected none: SRV records have ports", u.Port())
	}
	if err != nil {
		return nil, fmt.Errorf("httpbalance: SRV target %q: %w", target, err)
	}
	if o.Lookup == nil {
		o.Lookup = net.DefaultResolver
	}
	return &SRV{u, o.Lookup}, nil
}

// Resolve looks the records up, once, and returns a backend for each host and port of
// the best priority, sorted by ID, which is host and port. Weights are those of the
// records. Where some are above 0, those of weight 0 get what the algorithm of RFC 2782
// gives them: together as much as one record of weight 1. If all are 0 they are equal.
// A host and port that occurs twice gets both weights.
//
// Returns the error of the lookup, and [balance.ErrNoBackends] for an empty answer or
// one that says by the host "." that there is no such service, both wrapped. Records
// with names that are not valid are left out, as by [net.Resolver].
func (s *SRV) Resolve(ctx context.Context) ([]balance.Backend[*url.URL], error) {
	name := s.target.Hostname()
	_, records, err := s.lookup.LookupSRV(ctx, "", "", name)
	if err != nil && len(records) == 0 {
		return nil, fmt.Errorf("httpbalance: look up SRV %s: %w", name, err)
	}
	weights := best(records)
	if len(weights) == 0 {
		return nil, fmt.Errorf("httpbalance: look up SRV %s: %w", name, errors.Join(balance.ErrNoBackends, err))
	}
	set := make([]balance.Backend[*url.URL], 0, len(weights))
	for at, w := range weights {
		b := backendAt(s.target, at.host, strconv.Itoa(int(at.port)))
		b.Weight = w
		set = append(set, b)
	}
	slices.SortFunc(set, func(a, b balance.Backend[*url.URL]) int { return cmp.Compare(a.ID, b.ID) })
	return set, nil
}

type hostPort struct {
	host string
	port uint16
}

// best returns the weights of the records of the best priority.
func best(records []*net.SRV) map[hostPort]float64 {
	weights := map[hostPort]float64{}
	priority := uint16(0)
	for _, r := range records {
		at := hostPort{strings.ToLower(strings.TrimSuffix(r.Target, ".")), r.Port}
		if at.host == "" || r.Port == 0 || len(weights) > 0 && r.Priority > priority {
			continue
		}
		if r.Priority < priority {
			clear(weights)
		}
		priority = r.Priority
		weights[at] += float64(r.Weight)
	}
	zeros := 0.0
	for _, w := range weights {
		if w == 0 {
			zeros++
		}
	}
	for at, w := range weights {
		if w == 0 && zeros < float64(len(weights)) {
			weights[at] = 1 / zeros
		}
	}
	return weights
}
