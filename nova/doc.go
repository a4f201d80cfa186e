// Package nova signs in to Keystone and implements recover.Cloud with Nova: its
// Client lists instances by project and host, locks and unlocks them, requests hard
// reboots and reports the state of a host's nova-compute. gophercloud handles HTTP,
// tokens and catalogues. This package decides what a failure means, which requests
// may be repeated, and how a partial record is read.
//
// May call: recover, recover/plainfile.
//
// Invariants:
//
//   - A request that must not be carried out twice is repeated only after a failure
//     that proves that it was not carried out.
//   - recover.ErrNoInstance is returned only for Nova's own 404 to a user with the
//     role admin.
//   - No log line and no error contains a password, a secret or a token, and no
//     redirect to another server is followed.
//
// # Microversions
//
// The microversion is negotiated once, with the version document of the compute
// endpoint, and then sent with every request. It is the newest that both sides know,
// 2.73 at most, so that every Nova since Train answers alike
// (nova/api/openstack/compute/rest_api_version_history.rst):
//
//   - 2.9 (Mitaka, 13.0): a record says whether the instance is locked. This is
//     the oldest usable Nova; Open refuses an older one with ErrTooOld.
//   - 2.69 (Stein, 19.0): instances of a cell whose database does not answer are
//     listed with the status UNKNOWN. Below 2.69 they are missing from every list
//     without a notice, and a request for one of them is an error
//     (recover.ErrCloudUnavailable), never recover.ErrNoInstance.
//   - 2.73 (Train, 20.0): a lock carries a reason. Below it the reason is dropped.
//
// # Instances of a cell that is down
//
// Nova lists them only on the first page of a list without a filter other than
// all_tenants, and only as many as fit on that page after the others
// (nova/api/openstack/compute/servers.py, _is_cell_down_supported;
// nova/compute/api.py, get_all). Servers requests that page in addition to the
// filtered list. If a cloud's other instances fill the page (max_limit in nova.conf,
// 1000), instances of a cell that is down are not listed at all. So absence from a
// list proves nothing; only Server's recover.ErrNoInstance does.
//
// # Policies
//
// The policies that each method needs, with the roles that have them by default, the
// least privilege first. No method needs more than its own lines.
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
// Regardless of policies, Nova hides the instances of other projects from a user who
// does not satisfy its rule context_is_admin (the role admin): it answers 404
// (nova/db/main/api.py, model_query's project_only). A 404 for a user without the
// role admin is therefore recover.ErrForbidden.
package nova
