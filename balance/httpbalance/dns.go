package httpbalance

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"

	"github.com/evenkeel-go/evenkeel/balance"
)

// IPLookup finds the addresses of a host. A [net.Resolver] does.
type IPLookup interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// DNSOptions are the knobs of [NewDNS].
type DNSOptions struct {
	// Network is "ip4" or "ip6" for one kind of address, or "ip" for both. Empty means
	// IPv4 addresses or, if there are none, IPv6 ones: a host that has both would
	// otherwise count as two backends, one of which may be out of reach.
	Network string

	// Lookup asks the name service. Nil means [net.DefaultResolver].
	Lookup IPLookup
}

// DNS is a [Resolver]: each address of a host name is a backend, as with the headless
// services of Kubernetes. It is immutable and safe for concurrent use.
//
// The URLs of the backends have the address as host. With https set
// TLSClientConfig.ServerName in the base transport, since certificates are made out to
// names.
type DNS struct {
	target *url.URL
	lookup IPLookup
	family string
}

// NewDNS returns a resolver of the host name in target, such as
// "http://users.internal:8080/v1". The backends have its scheme, port and path. The port
// defaults to that of the scheme.
//
// Returns an error that names the value and what was expected if target is not such a
// URL, or DNSOptions.Network none of those listed there.
func NewDNS(target string, o DNSOptions) (*DNS, error) {
	u, err := parseTarget(target)
	if err != nil {
		return nil, fmt.Errorf("httpbalance: DNS target %q: %w", target, err)
	}
	switch o.Network {
	case "", "ip", "ip4", "ip6":
	default:
		return nil, fmt.Errorf(`httpbalance: DNSOptions.Network is %q, expected "ip", "ip4", "ip6" or empty`, o.Network)
	}
	if o.Lookup == nil {
		o.Lookup = net.DefaultResolver
	}
	return &DNS{u, o.Lookup, o.Network}, nil
}

// Resolve looks the addresses up, once, and returns a backend for each, sorted by
// address. The IDs are address and port.
//
// Returns the error of the lookup, and [balance.ErrNoBackends] for an empty answer, both
// wrapped. How long it may take is up to ctx.
func (d *DNS) Resolve(ctx context.Context) ([]balance.Backend[*url.URL], error) {
	network := d.family
	if network == "" {
		network = "ip"
	}
	host := d.target.Hostname()
	addrs, err := d.lookup.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, fmt.Errorf("httpbalance: look up %s: %w", host, err)
	}
	addrs = slices.Clone(addrs)
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	if d.family == "" && slices.ContainsFunc(addrs, netip.Addr.Is4) {
		addrs = slices.DeleteFunc(addrs, netip.Addr.Is6)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("httpbalance: look up %s: %w", host, balance.ErrNoBackends)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	var set []balance.Backend[*url.URL]
	for _, a := range slices.Compact(addrs) {
		set = append(set, backendAt(d.target, a.String(), portOf(d.target)))
	}
	return set, nil
}
