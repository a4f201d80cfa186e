package recover

// The steps that a journal records, each with a begin and a done or failed. They
// are the names of failpoints too, and part of what scripts may read: a journal
// is documented.
const (
	stepRun       = "run"        // the whole run; begin carries the runHeader
	stepPlan      = "plan"       // done carries the Plan, or one InstancePlan made anew by resume
	stepInstance  = "instance"   // one instance from its first step to its report
	stepPin       = "pin"        // the keeper holds every lost file of the instance
	stepAhead     = "ahead"      // one file into its staging place, while its guest still writes it
	stepCopy      = "copy"       // one file into its staging place
	stepCompare   = "compare"    // the copy with its source, in full
	stepCheck     = "check"      // qemu-img check of a copied qcow2
	stepBackup    = "backup"     // the instance's files into the backup directory
	stepStore     = "store"      // one file into the backup directory
	stepPublish   = "publish"    // one file gets its owner, its mode and its name
	stepFreeze    = "freeze"     // the guest's file systems, through its agent
	stepSuspend   = "suspend"    // running -> paused, flushed
	stepDestroy   = "destroy"    // QEMU ends
	stepStart     = "start"      // QEMU starts on the published files
	stepConfirm   = "confirm"    // what QEMU holds are the published inodes
	stepContinue  = "continue"   // undo of suspend
	stepThaw      = "thaw"       // undo of freeze
	stepCleanup   = "cleanup"    // undo of copy: staged files are removed
	stepLock      = "lock"       // the instance in Nova; begin carries the lockRecord
	stepUnlock    = "unlock"     // undo of lock
	stepReboot    = "reboot"     // hard reboot through Nova, until it is in service
	stepUnpin     = "unpin"      // the keeper lets the instance's files go
	stepSeal      = "seal"       // its directory is closed to all but root; begin carries the sealRecord
	stepUnseal    = "unseal"     // undo of seal
	stepMirror    = "mirror"     // one disk's mirror begins; begin carries the mirrorRecord
	stepReady     = "ready"      // every mirror has all of its disk
	stepPlace     = "place"      // one mirror gets its disk's name
	stepPivot     = "pivot"      // the guest is moved onto one mirror
	stepExport    = "export"     // its disks, as they are now, can be read while it runs; begin carries the scratch files
	stepEndExport = "end-export" // undo of export
)
