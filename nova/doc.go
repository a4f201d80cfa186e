// Package nova signs in to Keystone and does for package recover what only Nova
// can: it lists instances by project and host, locks and unlocks them, asks for
// hard reboots and says how a host's nova-compute is. Its Client is a
// recover.Cloud. HTTP, tokens and catalogues are gophercloud's; what a failure
// means, what may be asked again and what a partial record says is decided here.
//
// # Microversions
//
// The microversion is negotiated once, against the version document of the
// compute endpoint, and then sent with every request: the newest that both sides
// know, 2.73 at most, so that every Nova since Train answers alike
// (nova/api/openstack/compute/rest_api_version_history.rst):
//
//   - 2.9 (Mitaka, 13.0): a record says whether the instance is locked. This is
//     the oldest Nova that can serve; Open refuses an older one with ErrTooOld.
//   - 2.69 (Stein, 19.0): instances of a cell whose database does not answer are
//     listed with the status UNKNOWN. Below it they are silently missing from
//     every list, and a request for one of them is an error (ErrCloudUnavailable),
//     never recover.ErrNoInstance.
//   - 2.73 (Train, 20.0): a lock carries a reason. Below it the reason is dropped.
//
// # Instances of a cell that is down
//
// Nova puts them only on the first page of a list that has no filter but
// all_tenants, and no more of them than fit on that page after the others
// (nova/api/openstack/compute/servers.py, _is_cell_down_supported;
// nova/compute/api.py, get_all). Servers asks for that page besides the filtered
// list. Where a cloud's other instances fill a page (max_limit in nova.conf, 1000)
// they stay invisible: absence from a list proves nothing, only Server's
// recover.ErrNoInstance does.
//
// # Policies
//
// What each method needs, with the roles that have it by default. Least first; no
// method asks for more than its own line.
//
//	Open            none beyond a token for a project
//	OwnProject      none
//	Project         identity:get_project      admin, system reader, or the domain's reader
//	  by name       identity:list_projects    admin, system reader, or the domain's reader
//	  domain's name identity:list_domains     admin or system reader
//	LastReboot      os_compute_api:os-instance-actions:list     reader of the project, or admin
//	Server          os_compute_api:servers:show                 reader of the project, or admin
//	                os_compute_api:os-extended-server-attributes    admin
//	Servers         os_compute_api:servers:detail               reader of the project, or admin
//	                os_compute_api:servers:detail:get_all_tenants   admin
//	                os_compute_api:os-extended-server-attributes    admin
//	                (os_compute_api:servers:allow_all_filters: without it Nova drops
//	                the filter, and Servers filters what comes back)
//	ComputeService  os_compute_api:os-services:list             admin
//	Lock            os_compute_api:os-lock-server:lock          member of the project, or admin
//	Unlock          os_compute_api:os-lock-server:unlock        member of the project, or admin
//	                os_compute_api:os-lock-server:unlock:unlock_override  admin, for a
//	                lock that a user of another project made
//	Pause           os_compute_api:os-pause-server:pause        member of the project, or admin
//	HardReboot      os_compute_api:servers:reboot               member of the project, or admin
//
// Whatever the policies say, Nova hides the instances of other projects from a
// user for whom its rule context_is_admin (the role admin) does not hold: it
// answers 404 (nova/db/main/api.py, model_query's project_only). A 404 given to a
// user without the role admin is therefore recover.ErrForbidden.
package nova
