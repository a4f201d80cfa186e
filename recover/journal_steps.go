package recover

// The steps that a journal records. Each has a record when it begins, and another when
// it is done or has failed. They also name the failpoints. Scripts may read them: the
// format of a journal is documented.
const (
	stepRun       = "run"        // the whole run; begin carries the runHeader
	stepPlan      = "plan"       // done carries the Plan, or one InstancePlan that resume made anew
	stepInstance  = "instance"   // one instance from its first step to its report
	stepPin       = "pin"        // the keeper holds every lost file of the instance
	stepAhead     = "ahead"      // one file is copied to its staging directory while the guest still writes it
	stepCopy      = "copy"       // one file is copied to its staging directory
	stepCompare   = "compare"    // one copy is compared with its source in full
	stepCheck     = "check"      // qemu-img check of one copied qcow2 image
	stepBackup    = "backup"     // the instance's files are stored in the backup directory
	stepStore     = "store"      // one file is stored in the backup directory
	stepPublish   = "publish"    // one file gets its owner, its mode and its name
	stepFreeze    = "freeze"     // the guest's file systems are frozen through its agent
	stepSuspend   = "suspend"    // the guest is paused and its block layer flushed
	stepDestroy   = "destroy"    // the domain's QEMU ends
	stepStart     = "start"      // a new QEMU starts on the published files
	stepConfirm   = "confirm"    // QEMU is seen to have the published inodes open
	stepContinue  = "continue"   // undo of suspend
	stepThaw      = "thaw"       // undo of freeze
	stepCleanup   = "cleanup"    // undo of copy: staged files are removed
	stepLock      = "lock"       // the instance is locked in Nova; begin carries the lockRecord
	stepUnlock    = "unlock"     // undo of lock
	stepReboot    = "reboot"     // hard reboot through Nova, until the instance is in service
	stepUnpin     = "unpin"      // the keeper releases the instance's files
	stepSeal      = "seal"       // only root can enter its directory any more; begin carries the sealRecord
	stepUnseal    = "unseal"     // undo of seal
	stepMirror    = "mirror"     // one disk's mirror starts; begin carries the mirrorRecord
	stepReady     = "ready"      // every mirror has caught up with its disk
	stepPlace     = "place"      // one mirror gets its disk's name
	stepPivot     = "pivot"      // the guest is moved onto one mirror
	stepExport    = "export"     // its disks can be read, as they are now, while it runs; begin carries the exportRecord
	stepEndExport = "end-export" // undo of export
)
