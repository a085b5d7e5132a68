package grpcbalance

import (
	v3orcapb "github.com/cncf/xds/go/xds/data/orca/v3"
	"google.golang.org/grpc/balancer"
	_ "google.golang.org/grpc/orca" // makes gRPC parse the reports of load
	"google.golang.org/grpc/resolver"

	"github.com/evenkeel-go/evenkeel/balance"
)

// child is a backend to which there is a connection.
type child struct {
	picker   balancer.Picker
	endpoint resolver.Endpoint
}

// picker picks from a balancer. It holds nothing else that changes, so that all
// pickers of a channel, old and new, see the same counts.
type picker struct {
	balancer *balance.Balancer[*child]
	timed    bool // latencies are learnt
	failures codeSet
}

func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	c := callOf(info.Ctx)
	pick, err := p.choose(c)
	if err != nil {
		// The last connection has just been lost; another picker is on its way.
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	}
	if p.timed && (c == nil || !c.unary) {
		pick.Observe(0)
	}
	result, err := pick.Value.picker.Pick(info)
	if err != nil {
		pick.Observe(0)
		pick.Done(errIgnored)
		return result, err
	}
	result.Done = p.done(pick, c, result.Done)
	return result, nil
}

func (p *picker) choose(c *call) (balance.Pick[*child], error) {
	if c != nil {
		if tried := c.tried(); len(tried) > 0 {
			return p.balancer.PickExcept(tried...)
		}
	}
	return p.balancer.Pick()
}

// done returns what ends the pick. gRPC calls it exactly once, which is why it can
// hold the pick by value and is the only allocation of a pick.
func (p *picker) done(pick balance.Pick[*child], c *call, next func(balancer.DoneInfo)) func(balancer.DoneInfo) {
	return func(info balancer.DoneInfo) {
		pick := pick
		if load, ok := info.ServerLoad.(*v3orcapb.OrcaLoadReport); ok {
			report(&pick, load)
		}
		err := judge(&info, p.failures)
		if err == errIgnored && !info.BytesSent {
			pick.Observe(0) // it has not waited for the backend
		}
		pick.Done(err)
		if c != nil && info.Err != nil {
			c.fail(pick.ID())
		}
		if next != nil {
			next(info)
		}
	}
}

// report passes on the load that a backend reports with its answer. As in gRPC's
// weighted round robin (gRFC A58), what the application says of itself goes before
// the processor.
func report(pick *balance.Pick[*child], load *v3orcapb.OrcaLoadReport) {
	utilization := load.GetApplicationUtilization()
	if utilization <= 0 {
		utilization = load.GetCpuUtilization()
	}
	if utilization > 0 {
		pick.Report(balance.Load{Utilization: utilization})
	}
}
