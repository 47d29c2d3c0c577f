package raftstore

import (
	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/state"
)

func (e *encoder) command(c state.Command) *logv1.Command {
	switch c := c.(type) {
	case state.InitCluster:
		return &logv1.Command{Command: &logv1.Command_InitCluster{InitCluster: &logv1.InitCluster{ClusterId: c.ClusterID}}}
	case state.ClockJumped:
		return &logv1.Command{Command: &logv1.Command_ClockJumped{ClockJumped: &logv1.ClockJumped{Was: e.time(c.Was), Is: e.time(c.Is)}}}
	case state.PutJob:
		return &logv1.Command{Command: &logv1.Command_PutJob{PutJob: e.putJob(c)}}
	case state.DeleteJob:
		return &logv1.Command{Command: &logv1.Command_DeleteJob{DeleteJob: &logv1.DeleteJob{
			Key: e.key(c.Key), Expected: c.Expected, Effective: e.time(c.Effective),
		}}}
	case state.PauseJob:
		return &logv1.Command{Command: &logv1.Command_PauseJob{PauseJob: &logv1.PauseJob{
			Key: e.key(c.Key), Note: e.text(c.Note), Until: e.time(c.Until), Effective: e.time(c.Effective),
		}}}
	case state.ResumeJob:
		return &logv1.Command{Command: &logv1.Command_ResumeJob{ResumeJob: &logv1.ResumeJob{
			Key: e.key(c.Key), Until: e.time(c.Until), Effective: e.time(c.Effective),
		}}}
	case state.Quarantine:
		return &logv1.Command{Command: &logv1.Command_Quarantine{Quarantine: &logv1.Quarantine{
			Key: e.key(c.Key), Uid: c.UID, Version: c.Version, Reason: e.text(c.Reason),
		}}}
	case state.Decide:
		return &logv1.Command{Command: &logv1.Command_Decide{Decide: e.decide(c)}}
	case state.Prune:
		return &logv1.Command{Command: &logv1.Command_Prune{Prune: &logv1.Prune{
			Runs: each(c.Runs, func(id state.RunID) []byte { return id[:] }), LedgerBefore: e.time(c.LedgerBefore),
		}}}
	}
	if p := e.runCommand(c); p != nil {
		return p
	}
	if p := e.workerCommand(c); p != nil {
		return p
	}
	if p := e.groupCommand(c); p != nil {
		return p
	}
	e.failf("there is no such command")
	return nil
}

func (e *encoder) runCommand(c state.Command) *logv1.Command {
	switch c := c.(type) {
	case state.Request:
		return &logv1.Command{Command: &logv1.Command_Request{Request: e.request(c)}}
	case state.Assign:
		return &logv1.Command{Command: &logv1.Command_Assign{Assign: &logv1.Assign{
			Run: c.Run[:], Attempt: int64(c.Attempt), Worker: string(c.Worker),
		}}}
	case state.Start:
		return &logv1.Command{Command: &logv1.Command_Start{Start: &logv1.Start{
			Run: c.Run[:], Fence: c.Fence, Time: e.time(c.Time),
		}}}
	case state.Finish:
		return &logv1.Command{Command: &logv1.Command_Finish{Finish: &logv1.Finish{
			Run: c.Run[:], Fence: c.Fence, Attempt: e.attempt(c.Attempt),
			Phase: e.phase(c.Phase), Reason: e.text(c.Reason), NotBefore: e.time(c.NotBefore),
		}}}
	case state.Cancel:
		return &logv1.Command{Command: &logv1.Command_Cancel{Cancel: &logv1.Cancel{Run: c.Run[:], Note: e.text(c.Note)}}}
	case state.GiveUp:
		return &logv1.Command{Command: &logv1.Command_GiveUp{GiveUp: &logv1.GiveUp{
			Run: c.Run[:], Phase: e.phase(c.Phase), Reason: e.text(c.Reason),
		}}}
	}
	return nil
}

func (e *encoder) workerCommand(c state.Command) *logv1.Command {
	switch c := c.(type) {
	case state.PutWorker:
		return &logv1.Command{Command: &logv1.Command_PutWorker{PutWorker: &logv1.PutWorker{
			Id: string(c.ID), PublicKey: c.PublicKey, Says: e.workerInfo(c.Says),
		}}}
	case state.SetEnforcement:
		p := &logv1.SetEnforcement{Id: string(c.ID)}
		if c.Enforcement != (state.Enforcement{}) {
			p.Enforcement = e.enforcement(c.Enforcement)
		}
		return &logv1.Command{Command: &logv1.Command_SetEnforcement{SetEnforcement: p}}
	case state.SetOffline:
		return &logv1.Command{Command: &logv1.Command_SetOffline{SetOffline: &logv1.SetOffline{Id: string(c.ID)}}}
	case state.UpdateWorker:
		return &logv1.Command{Command: &logv1.Command_UpdateWorker{UpdateWorker: e.updateWorker(c)}}
	case state.DrainWorker:
		return &logv1.Command{Command: &logv1.Command_DrainWorker{DrainWorker: &logv1.DrainWorker{
			Id: string(c.ID), Undo: c.Undo, Note: e.text(c.Note),
		}}}
	case state.RemoveWorker:
		return &logv1.Command{Command: &logv1.Command_RemoveWorker{RemoveWorker: &logv1.RemoveWorker{Id: string(c.ID)}}}
	}
	return nil
}

func (e *encoder) groupCommand(c state.Command) *logv1.Command {
	switch c := c.(type) {
	case state.SetStandby:
		return &logv1.Command{Command: &logv1.Command_SetStandby{SetStandby: &logv1.SetStandby{Id: c.ID, Standby: c.Standby}}}
	case state.SetDirect:
		return &logv1.Command{Command: &logv1.Command_SetDirect{SetDirect: &logv1.SetDirect{Address: c.Address, Remove: c.Remove}}}
	}
	return nil
}

func (e *encoder) putJob(c state.PutJob) *logv1.PutJob {
	if c.Definition == nil {
		e.failf("job %v has no definition", c.Key)
		return nil
	}
	return &logv1.PutJob{
		Key: e.key(c.Key), Definition: e.definition(c.Definition), Expected: c.Expected, Effective: e.time(c.Effective), Uid: c.UID,
	}
}

func (e *encoder) decide(c state.Decide) *logv1.Decide {
	return &logv1.Decide{
		Key: e.key(c.Key), Uid: c.UID, Version: c.Version, Activity: c.Activity,
		Trigger: c.Trigger, After: e.time(c.After), Until: e.time(c.Until), Decisions: each(c.Decisions, e.decided),
	}
}

func (e *encoder) request(c state.Request) *logv1.Request {
	return &logv1.Request{
		Key: e.key(c.Key), Uid: c.UID, Version: c.Version, Activity: c.Activity,
		Id: c.ID[:], RetryOf: e.ref(c.RetryOf), Trigger: c.Trigger, Birth: e.birth(c.Birth),
	}
}

func (e *encoder) updateWorker(c state.UpdateWorker) *logv1.UpdateWorker {
	p := &logv1.UpdateWorker{Id: string(c.ID), SetLabels: e.labels(c.SetLabels), RemoveLabels: c.RemoveLabels}
	if c.Slots != nil {
		n := int64(*c.Slots)
		p.Slots = &n
	}
	return p
}

func (d *decoder) command(p *logv1.Command) state.Command {
	switch p := p.GetCommand().(type) {
	case *logv1.Command_InitCluster:
		return state.InitCluster{ClusterID: p.InitCluster.GetClusterId()}
	case *logv1.Command_ClockJumped:
		return state.ClockJumped{Was: d.time(p.ClockJumped.GetWas()), Is: d.time(p.ClockJumped.GetIs())}
	case *logv1.Command_PutJob:
		return d.putJob(p.PutJob)
	case *logv1.Command_DeleteJob:
		c := p.DeleteJob
		return state.DeleteJob{Key: d.key(c.GetKey()), Expected: c.Expected, Effective: d.time(c.GetEffective())}
	case *logv1.Command_PauseJob:
		c := p.PauseJob
		return state.PauseJob{Key: d.key(c.GetKey()), Note: c.GetNote(), Until: d.time(c.GetUntil()), Effective: d.time(c.GetEffective())}
	case *logv1.Command_ResumeJob:
		c := p.ResumeJob
		return state.ResumeJob{Key: d.key(c.GetKey()), Until: d.time(c.GetUntil()), Effective: d.time(c.GetEffective())}
	case *logv1.Command_Quarantine:
		c := p.Quarantine
		return state.Quarantine{Key: d.key(c.GetKey()), UID: c.GetUid(), Version: c.GetVersion(), Reason: c.GetReason()}
	case *logv1.Command_Decide:
		return d.decide(p.Decide)
	case *logv1.Command_Prune:
		return state.Prune{Runs: each(p.Prune.GetRuns(), d.id), LedgerBefore: d.time(p.Prune.GetLedgerBefore())}
	}
	if c := d.runCommand(p); c != nil {
		return c
	}
	if c := d.workerCommand(p); c != nil {
		return c
	}
	if c := d.groupCommand(p); c != nil {
		return c
	}
	d.failf("a command %w", errNewer)
	return nil
}

func (d *decoder) runCommand(p *logv1.Command) state.Command {
	switch p := p.GetCommand().(type) {
	case *logv1.Command_Request:
		return d.request(p.Request)
	case *logv1.Command_Assign:
		c := p.Assign
		return state.Assign{Run: d.id(c.GetRun()), Attempt: d.int(c.GetAttempt()), Worker: state.WorkerID(d.text(c.GetWorker()))}
	case *logv1.Command_Start:
		return state.Start{Run: d.id(p.Start.GetRun()), Fence: p.Start.GetFence(), Time: d.time(p.Start.GetTime())}
	case *logv1.Command_Finish:
		c := p.Finish
		return state.Finish{
			Run: d.id(c.GetRun()), Fence: c.GetFence(), Attempt: d.attempt(c.GetAttempt()),
			Phase: d.phase(c.GetPhase()), Reason: c.GetReason(), NotBefore: d.time(c.GetNotBefore()),
		}
	case *logv1.Command_Cancel:
		return state.Cancel{Run: d.id(p.Cancel.GetRun()), Note: p.Cancel.GetNote()}
	case *logv1.Command_GiveUp:
		c := p.GiveUp
		return state.GiveUp{Run: d.id(c.GetRun()), Phase: d.phase(c.GetPhase()), Reason: c.GetReason()}
	}
	return nil
}

func (d *decoder) workerCommand(p *logv1.Command) state.Command {
	switch p := p.GetCommand().(type) {
	case *logv1.Command_PutWorker:
		c := p.PutWorker
		return state.PutWorker{ID: state.WorkerID(c.GetId()), PublicKey: c.GetPublicKey(), Says: d.workerInfo(c.GetSays())}
	case *logv1.Command_SetEnforcement:
		c := p.SetEnforcement
		return state.SetEnforcement{ID: state.WorkerID(c.GetId()), Enforcement: d.enforcement(c.GetEnforcement())}
	case *logv1.Command_SetOffline:
		return state.SetOffline{ID: state.WorkerID(p.SetOffline.GetId())}
	case *logv1.Command_UpdateWorker:
		return d.updateWorker(p.UpdateWorker)
	case *logv1.Command_DrainWorker:
		c := p.DrainWorker
		return state.DrainWorker{ID: state.WorkerID(c.GetId()), Undo: c.GetUndo(), Note: c.GetNote()}
	case *logv1.Command_RemoveWorker:
		return state.RemoveWorker{ID: state.WorkerID(p.RemoveWorker.GetId())}
	}
	return nil
}

func (d *decoder) groupCommand(p *logv1.Command) state.Command {
	switch p := p.GetCommand().(type) {
	case *logv1.Command_SetStandby:
		return state.SetStandby{ID: p.SetStandby.GetId(), Standby: p.SetStandby.GetStandby()}
	case *logv1.Command_SetDirect:
		return state.SetDirect{Address: p.SetDirect.GetAddress(), Remove: p.SetDirect.GetRemove()}
	}
	return nil
}

func (d *decoder) putJob(p *logv1.PutJob) state.PutJob {
	if p.GetDefinition() == nil {
		d.failf("a job without a definition")
	}
	return state.PutJob{
		Key: d.key(p.GetKey()), Definition: d.definition(p.GetDefinition()), Expected: p.Expected, Effective: d.time(p.GetEffective()), UID: p.GetUid(),
	}
}

func (d *decoder) decide(p *logv1.Decide) state.Decide {
	return state.Decide{
		Key: d.key(p.GetKey()), UID: p.GetUid(), Version: p.GetVersion(), Activity: p.GetActivity(),
		Trigger: d.text(p.GetTrigger()), After: d.time(p.GetAfter()), Until: d.time(p.GetUntil()), Decisions: each(p.GetDecisions(), d.decided),
	}
}

func (d *decoder) request(p *logv1.Request) state.Request {
	return state.Request{
		Key: d.key(p.GetKey()), UID: p.GetUid(), Version: p.GetVersion(), Activity: p.GetActivity(),
		ID: d.id(p.GetId()), RetryOf: d.ref(p.GetRetryOf()), Trigger: d.text(p.GetTrigger()), Birth: d.birth(p.GetBirth()),
	}
}

func (d *decoder) updateWorker(p *logv1.UpdateWorker) state.UpdateWorker {
	c := state.UpdateWorker{ID: state.WorkerID(p.GetId()), SetLabels: d.labels(p.GetSetLabels()), RemoveLabels: p.GetRemoveLabels()}
	if p.Slots != nil {
		n := d.int(p.GetSlots())
		c.Slots = &n
	}
	return c
}
