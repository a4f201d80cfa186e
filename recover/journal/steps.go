package journal

// The steps that a journal records. Each has a record when it begins, and another when
// it is done or has failed. They also name the failpoints. Scripts may read them: the
// format of a journal is documented (docs/reference.md).
const (
	StepRun       = "run"        // the whole run; begin carries the Header, done the End
	StepPlan      = "plan"       // done carries the Plan, or one InstancePlan that resume made anew
	StepInstance  = "instance"   // one instance from its first step to its report; done carries the Settlement
	StepPin       = "pin"        // the keeper holds every lost file of the instance; done carries the Pinned
	StepAhead     = "ahead"      // one file is copied while the guest still writes it; begin and done carry the Staged
	StepCopy      = "copy"       // one file is copied to its staging directory; begin and done carry the Staged
	StepCompare   = "compare"    // one copy is compared with its source in full; done carries the Proof
	StepLookAgain = "look-again" // after QEMU's end every held inode is looked at once more
	StepUpdate    = "update"     // one copy is made anew where its inode was written since; begin and done carry the Staged
	StepUnchanged = "unchanged"  // what is still held of one file is compared with the backup that is to be restored
	StepCheck     = "check"      // qemu-img check of one copied qcow2 image
	StepBackup    = "backup"     // the instance's files are stored in the backup directory
	StepStore     = "store"      // one file is stored in the backup directory
	StepPublish   = "publish"    // one file gets its owner, its mode and its name; begin and done carry the Published
	StepOwn       = "own"        // one directory gets its owner and its mode; begin carries the recover.Directory
	StepLinkBack  = "link-back"  // one file is linked to its path; begin carries the recover.Relink
	StepMoveBack  = "move-back"  // one file is renamed to its path; begin carries the recover.Relink
	StepUnlink    = "unlink"     // undo of link-back and move-back
	StepFreeze    = "freeze"     // the guest's file systems are frozen through its agent
	StepSuspend   = "suspend"    // the guest is paused and its block layer flushed
	StepDestroy   = "destroy"    // the domain's QEMU ends
	StepCrash     = "crash"      // its QEMU was seen to have crashed
	StepStart     = "start"      // a new QEMU starts on the published files
	StepConfirm   = "confirm"    // QEMU is seen to have the published inodes open
	StepContinue  = "continue"   // undo of suspend
	StepThaw      = "thaw"       // undo of freeze
	StepCleanup   = "cleanup"    // undo of copy: staged files are removed
	StepLock      = "lock"       // the instance is locked in Nova; begin carries the Lock
	StepUnlock    = "unlock"     // undo of lock
	StepReboot    = "reboot"     // hard reboot through Nova, until the instance is in service
	StepUnpin     = "unpin"      // the keeper releases the instance's files
	StepSeal      = "seal"       // only root can enter its directory any more; begin carries the Seal
	StepUnseal    = "unseal"     // undo of seal
	StepMirror    = "mirror"     // one disk's mirror starts; begin carries the Mirror
	StepReady     = "ready"      // every mirror has caught up with its disk
	StepPlace     = "place"      // one mirror gets its disk's name
	StepPivot     = "pivot"      // the guest is moved onto one mirror
	StepExport    = "export"     // its disks can be read, as they are now, while it runs; begin carries the Export
	StepAbandon   = "abandon"    // a person ends the run as it is; begin carries the recover.AbandonChoice
	StepComputeID = "compute-id" // Nova's compute_id is put back, for the run as a whole
	StepEndExport = "end-export" // undo of export
)
