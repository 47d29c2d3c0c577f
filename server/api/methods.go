package api

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// home says which primary carries out a method, whichever is asked.
type home int

const (
	// local is any primary: it looks up what is agreed, as far as it has come.
	local home = iota + 1
	// leaderWrites is the leader: it changes what is agreed.
	leaderWrites
	// leaderReads is the leader: it alone knows.
	leaderReads
	// either is the leader, or, where none can be asked, the primary itself.
	either
)

// homes has each method of schedd.v1.
var homes = map[string]home{
	"JobService/PutJob":          leaderWrites,
	"JobService/GetJob":          local,
	"JobService/ListJobs":        local,
	"JobService/DeleteJob":       leaderWrites,
	"JobService/PauseJob":        leaderWrites,
	"JobService/ResumeJob":       leaderWrites,
	"JobService/RunJob":          leaderWrites,
	"JobService/PreviewSchedule": local,
	"JobService/VerifyLedger":    local,

	"RunService/GetRun":    local,
	"RunService/ListRuns":  local,
	"RunService/CancelRun": leaderWrites,
	"RunService/RetryRun":  leaderWrites,
	"RunService/WatchRuns": local,
	"RunService/ReadLog":   local,

	"WorkerService/ListWorkers":        leaderReads,
	"WorkerService/GetWorker":          leaderReads,
	"WorkerService/UpdateWorker":       leaderWrites,
	"WorkerService/DrainWorker":        leaderWrites,
	"WorkerService/RemoveWorker":       leaderWrites,
	"WorkerService/AddDirectWorker":    leaderWrites,
	"WorkerService/RemoveDirectWorker": leaderWrites,
	"WorkerService/ListDirectWorkers":  local,

	"ClusterService/GetStatus":          either,
	"ClusterService/AddPrimary":         leaderWrites,
	"ClusterService/RemovePrimary":      leaderWrites,
	"ClusterService/TransferLeadership": leaderWrites,
	"ClusterService/SaveSnapshot":       leaderReads,
	"ClusterService/RestoreSnapshot":    leaderWrites,
}

// method is what is to be known of a method to hand it on.
type method struct {
	name    string // as in "/schedd.v1.JobService/PutJob"
	home    home
	stream  grpc.StreamDesc
	in, out protoreflect.MessageType
}

// apiPackage is the package of the API's services.
const apiPackage protoreflect.FullName = "schedd.v1"

// methods has all methods of the API, by name. Those of other services on the
// same server are not in it, and are left alone.
var methods = describe()

func describe() map[string]method {
	all := map[string]method{}
	protoregistry.GlobalFiles.RangeFilesByPackage(apiPackage, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			of := f.Services().Get(i)
			for j := range of.Methods().Len() {
				d := of.Methods().Get(j)
				m := method{
					name: "/" + string(of.FullName()) + "/" + string(d.Name()),
					home: homes[string(of.Name())+"/"+string(d.Name())],
					in:   messageType(d.Input()), out: messageType(d.Output()),
					stream: grpc.StreamDesc{
						StreamName: string(d.Name()), ServerStreams: d.IsStreamingServer(), ClientStreams: d.IsStreamingClient(),
					},
				}
				all[m.name] = m
			}
		}
		return true
	})
	return all
}

// messageType returns the Go type of a message of the API, which is linked in
// with its service.
func messageType(d protoreflect.MessageDescriptor) protoreflect.MessageType {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic("api: a message of a service of ours: " + err.Error())
	}
	return t
}

// repeatable tells whether a call may be made again when it is not known whether
// it was carried out: it changes nothing, or names what it asks for, so that doing
// it again is finding it done.
func (m method) repeatable(req any) bool {
	if m.home != leaderWrites {
		return true
	}
	r, named := req.(interface{ GetRequestId() string })
	return named && r.GetRequestId() != ""
}
