package raftstore

import (
	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/state"
)

func (e *encoder) worker(w *state.Worker) *logv1.Worker {
	p := &logv1.Worker{
		Id: string(w.ID), PublicKey: w.PublicKey, Says: e.workerInfo(w.Says), First: e.time(w.First), Offline: e.time(w.Offline),
		ExtraLabels: e.labels(w.ExtraLabels), ExtraSlots: int64(w.ExtraSlots),
	}
	if w.Enforcement != (state.Enforcement{}) {
		p.Enforcement = e.enforcement(w.Enforcement)
	}
	if w.Drain != nil {
		p.Drain = &logv1.Drain{Note: e.text(w.Drain.Note), Since: e.time(w.Drain.Since)}
	}
	return p
}

func (d *decoder) worker(p *logv1.Worker) *state.Worker {
	w := &state.Worker{
		ID: state.WorkerID(p.GetId()), PublicKey: p.GetPublicKey(), Says: d.workerInfo(p.GetSays()), First: d.time(p.GetFirst()), Offline: d.time(p.GetOffline()),
		ExtraLabels: d.labels(p.GetExtraLabels()), ExtraSlots: d.int(p.GetExtraSlots()),
	}
	w.Enforcement = d.enforcement(p.GetEnforcement())
	if q := p.GetDrain(); q != nil {
		w.Drain = &state.Drain{Note: q.GetNote(), Since: d.time(q.GetSince())}
	}
	return w
}

func (e *encoder) workerInfo(w state.WorkerInfo) *logv1.WorkerInfo {
	return &logv1.WorkerInfo{
		Name: e.text(w.Name), Labels: e.labels(w.Labels), Slots: int64(w.Slots),
		AdvertiseHostname: e.text(w.AdvertiseHostname), AdvertiseIp: e.text(w.AdvertiseIP),
		Version: e.text(w.Version), Os: e.text(w.OS), Arch: e.text(w.Arch),
	}
}

func (d *decoder) workerInfo(p *logv1.WorkerInfo) state.WorkerInfo {
	return state.WorkerInfo{
		Name: p.GetName(), Labels: d.labels(p.GetLabels()), Slots: d.int(p.GetSlots()),
		AdvertiseHostname: p.GetAdvertiseHostname(), AdvertiseIP: p.GetAdvertiseIp(),
		Version: p.GetVersion(), OS: p.GetOs(), Arch: p.GetArch(),
	}
}

func (e *encoder) enforcement(f state.Enforcement) *logv1.Enforcement {
	means := func(m state.Means) logv1.Means { return toEnum[logv1.Means](e, m, state.MeansUnknown) }
	return &logv1.Enforcement{
		Memory: means(f.Memory), Cpu: means(f.CPU), Pids: means(f.PIDs), Usage: means(f.Usage), Tree: means(f.Tree), Note: e.text(f.Note),
	}
}

func (d *decoder) enforcement(p *logv1.Enforcement) state.Enforcement {
	if p == nil {
		return state.Enforcement{}
	}
	means := func(m logv1.Means) state.Means { return fromEnum(d, m, state.MeansUnknown) }
	return state.Enforcement{
		Memory: means(p.GetMemory()), CPU: means(p.GetCpu()), PIDs: means(p.GetPids()), Usage: means(p.GetUsage()), Tree: means(p.GetTree()), Note: p.GetNote(),
	}
}
