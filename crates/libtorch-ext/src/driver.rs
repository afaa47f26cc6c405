//! Queries to the CUDA driver (`libcuda.so.1`), before libtorch's CUDA half is opened: that takes
//! seconds and gigabytes, which a machine without a GPU can save.

use std::ffi::{CStr, c_char, c_int};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::Error;

const LIBRARY: &str = "libcuda.so.1";

/// A GPU as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// Marketing name.
    pub name: String,
    /// Memory in bytes.
    pub memory: u64,
}

/// The opened and initialised driver.
#[derive(Debug)]
pub struct CudaDriver {
    library: Library,
}

impl CudaDriver {
    /// Opens and initialises the driver.
    ///
    /// # Errors
    /// Returns an error if there is no driver, or no GPU that it can use.
    pub fn open() -> Result<Self, Error> {
        // SAFETY: the driver is a system library whose initialisers have no preconditions.
        let library = unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|e| Error::open(LIBRARY, &e.to_string()))?;
        let driver = CudaDriver { library };
        // SAFETY: `CUresult cuInit(unsigned int)`.
        check("cuInit", unsafe {
            let init = driver.function::<unsafe extern "C" fn(u32) -> c_int>("cuInit")?;
            init(0)
        })?;
        Ok(driver)
    }

    /// CUDA version that the driver supports, as (major, minor).
    ///
    /// # Errors
    /// Returns the driver's error code.
    pub fn version(&self) -> Result<(i32, i32), Error> {
        let mut v: c_int = 0;
        // SAFETY: `CUresult cuDriverGetVersion(int *)`, given a valid pointer.
        check("cuDriverGetVersion", unsafe {
            let f = self.function::<unsafe extern "C" fn(*mut c_int) -> c_int>("cuDriverGetVersion")?;
            f(&mut v)
        })?;
        Ok((v / 1000, v % 1000 / 10))
    }

    /// All GPUs visible to this process.
    ///
    /// # Errors
    /// Returns the driver's error code.
    pub fn devices(&self) -> Result<Vec<CudaDevice>, Error> {
        let mut count: c_int = 0;
        // SAFETY: `CUresult cuDeviceGetCount(int *)`, given a valid pointer.
        check("cuDeviceGetCount", unsafe {
            let f = self.function::<unsafe extern "C" fn(*mut c_int) -> c_int>("cuDeviceGetCount")?;
            f(&mut count)
        })?;
        (0..count).map(|i| self.device(i)).collect()
    }

    fn device(&self, index: c_int) -> Result<CudaDevice, Error> {
        let mut handle: c_int = 0;
        let mut name = [0 as c_char; 256];
        let mut memory: usize = 0;
        // SAFETY: the documented signatures of the driver API, with valid pointers and the name's
        // true length.
        unsafe {
            let get = self.function::<unsafe extern "C" fn(*mut c_int, c_int) -> c_int>("cuDeviceGet")?;
            check("cuDeviceGet", get(&mut handle, index))?;
            let get =
                self.function::<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>("cuDeviceGetName")?;
            check("cuDeviceGetName", get(name.as_mut_ptr(), name.len() as c_int - 1, handle))?;
            let get =
                self.function::<unsafe extern "C" fn(*mut usize, c_int) -> c_int>("cuDeviceTotalMem_v2")?;
            check("cuDeviceTotalMem_v2", get(&mut memory, handle))?;
        }
        // SAFETY: the buffer was zeroed and its last byte was not offered to the driver.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(CudaDevice { name, memory: memory as u64 })
    }

    /// # Safety
    /// `F` must be the symbol's true type.
    unsafe fn function<F: Copy>(&self, name: &'static str) -> Result<F, Error> {
        // SAFETY: the caller vouches for the type; the library stays open as long as `self`.
        unsafe { self.library.get::<F>(name.as_bytes()) }
            .map(|symbol| *symbol)
            .map_err(|e| Error::open(LIBRARY, &e.to_string()))
    }
}

fn check(call: &'static str, code: c_int) -> Result<(), Error> {
    if code == 0 { Ok(()) } else { Err(Error::Driver { call, code }) }
}
